"""A model can be run again without being disturbed."""

import pytest
import torch
from torch import nn

from attribguard.modes import RandomState, ScratchBuffers, undisturbed


class Counts(nn.Module):
    """A buffer that batch normalisation knows nothing of."""

    def __init__(self):
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))
        self.register_buffer("nothing", None)

    def forward(self, x):
        self.passes += 1
        return x


def make():
    instance_norm = nn.InstanceNorm2d(2, track_running_stats=True)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), instance_norm, Counts())


def test_buffers_stay_the_same_objects_with_the_same_values():
    model = make()
    before = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()}
    with ScratchBuffers(model):
        out = model(torch.randn(3, 1, 6, 6))
        assert model[3].passes == 1
    assert all(buffer is before[name][0] for name, buffer in model.named_buffers())
    assert all(torch.equal(*pair) for pair in before.values())
    out.sum().backward()
    assert model[0].weight.grad is not None


def test_buffers_come_back_after_an_exception():
    model = make()
    mine = model[3].passes
    with pytest.raises(RuntimeError), ScratchBuffers(model):
        model(torch.randn(3, 2, 6, 6))
    assert model[3].passes is mine


@pytest.mark.parametrize("fails", [False, True])
def test_undisturbed_puts_every_flag_and_the_random_state_back(fails):
    model = make()
    model[1].eval()
    flags, state = [m.training for m in model.modules()], torch.get_rng_state()
    seen = []
    try:
        with undisturbed(model, torch.device("cpu")):
            seen = [m.training for m in model.modules()]
            torch.rand(3)
            assert not torch.is_grad_enabled()
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert not any(seen)
    assert [m.training for m in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)


def test_random_state_knows_whether_it_moved_and_goes_back():
    state = RandomState(torch.device("cpu"))
    assert state.unchanged()
    first = torch.rand(3)
    assert not state.unchanged()
    state.restore()
    assert torch.equal(torch.rand(3), first)
