"""The states of all random numbers that a training draws."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["device_states", "host_states", "restore_device_states", "restore_host_states"]


def host_states() -> dict[str, Any]:
    """Of torch on the CPU, Python's ``random`` and numpy's global generator, as tensors and plain values."""
    kind, key, *rest = np.random.get_state()  # noqa: NPY002  # what users' data sets draw from
    return {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(np.asarray(key).astype(np.int64)), *rest),
    }


def restore_host_states(states: dict[str, Any]) -> None:
    """Go back to them.

    Args:
        states: as :func:`host_states` gave them.
    """
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    kind, key, *rest = states["numpy"]
    np.random.set_state((kind, key.numpy().astype(np.uint32), *rest))  # noqa: NPY002


def device_states(module: nn.Module) -> dict[str, list[torch.Tensor]]:
    """Of the accelerators on which a module is: kind of device to the states of these.

    Args:
        module: the network.
    """
    return {
        kind: [torch.get_device_module(kind).get_rng_state(device) for device in devices]
        for kind, devices in _accelerators(module).items()
    }


def restore_device_states(states: dict[str, list[torch.Tensor]], module: nn.Module) -> None:
    """Go back to them, on the devices on which the module now is. Another kind of device has no state to go back to.

    Args:
        states: as :func:`device_states` gave them.
        module: the network.
    """
    for kind, devices in _accelerators(module).items():
        for device, state in zip(devices, states.get(kind, []), strict=False):
            torch.get_device_module(kind).set_rng_state(state, device)


def _accelerators(module: nn.Module) -> dict[str, list[torch.device]]:
    tensors = itertools.chain(module.parameters(), module.buffers())
    devices = sorted({tensor.device for tensor in tensors} - {torch.device("cpu")}, key=str)
    return {kind: list(those) for kind, those in itertools.groupby(devices, key=lambda device: device.type)}
