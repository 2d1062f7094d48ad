import pytest
import torch
from torch import nn

from attribguard.models.double_convolution import double_convolution, run
from attribguard.modes import ScratchBuffers


def kept_inside(block, x, checkpointing):
    """How many values a pass keeps for the backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        run(block, x, checkpointing)
    return sum(kept)


def after_a_step(norm, checkpointing, twice):
    """Every gradient and buffer; with `twice`, of a loss on the input's gradient."""
    torch.manual_seed(0)
    block = double_convolution(2, 3, norm)
    x = torch.rand(4, 2, 6, 5, requires_grad=True)
    loss = run(block, x, checkpointing).square().sum()
    if twice:
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        loss = gradient.square().sum()
    loss.backward()
    return [p.grad for p in block.parameters()] + list(block.buffers())


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_checkpointing_changes_no_gradient_and_no_running_statistic(norm, twice):
    plain, again = (after_a_step(norm, checkpointing, twice) for checkpointing in (False, True))
    assert len(plain) == (4 if norm == "none" else 12)
    for a, b in zip(plain, again, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_checkpointing_keeps_only_what_enters_the_block():
    block, x = double_convolution(2, 3, "batch"), torch.rand(4, 2, 6, 5)
    inside = 4 * 6 * 5 * 3  # the values of one map
    assert kept_inside(block, x, checkpointing=False) > x.numel() + 3 * inside
    assert kept_inside(block, x, checkpointing=True) == x.numel()


def test_a_block_whose_buffers_were_on_loan_has_its_own_after_the_backward_pass():
    """As in the guard's second pass, of which the running statistics must not see anything."""
    block = double_convolution(1, 2, "batch")
    own = [(buffer, buffer.clone()) for buffer in block.buffers()]
    with ScratchBuffers(block):
        out = run(block, torch.rand(2, 1, 4, 4), checkpointing=True)
    out.sum().backward()
    for (buffer, before), now in zip(own, block.buffers(), strict=True):
        assert now is buffer
        assert torch.equal(buffer, before)


def test_normalised_convolutions_have_no_bias():
    for norm, biases in (("none", 2), ("batch", 0)):
        convolutions = [layer for layer in double_convolution(1, 2, norm) if isinstance(layer, nn.Conv2d)]
        assert sum(layer.bias is not None for layer in convolutions) == biases
