"""Whatever draws, goes back to where it was."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from attribguard.checkpoint.random_states import (
    device_states,
    host_states,
    restore_device_states,
    restore_host_states,
)


def drawn():
    """From each global generator; an odd number of normal draws leaves a second one waiting."""
    return torch.randn(3).tolist(), random.gauss(0, 1), np.random.randn(3).tolist()  # noqa: NPY002


def test_the_hosts_generators_draw_as_before():
    drawn()
    states = host_states()
    first = drawn()
    assert drawn() != first
    restore_host_states(states)
    assert drawn() == first


def test_the_generators_of_the_devices_on_which_a_module_is_go_back_and_no_others(monkeypatch):
    """On a machine without an accelerator, a device that holds no data stands for one."""
    states = {"meta": 1, "other": 2}
    module = SimpleNamespace(
        get_rng_state=lambda device: states[device.type],
        set_rng_state=lambda state, device: states.update({device.type: state}),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda kind: module)
    there, here = nn.Linear(1, 1, device="meta"), nn.Linear(1, 1)
    saved = device_states(there)
    assert saved == {"meta": [1]} and device_states(here) == {}
    states["meta"] = 5
    restore_device_states(saved, here)
    restore_device_states({}, there)
    assert states == {"meta": 5, "other": 2}
    restore_device_states(saved, there)
    assert states == {"meta": 1, "other": 2}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_cuda_draws_as_before():
    module = nn.Linear(1, 1, device="cuda")
    states = device_states(module)
    first = torch.rand(3, device="cuda")
    restore_device_states(states, module)
    assert torch.equal(torch.rand(3, device="cuda"), first)
