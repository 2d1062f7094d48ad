"""Scores of two classes or one output through their margin: the same derivative as through the logits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.functional.margin import MARGIN_SCORES, margin, slope
from attribguard.functional.scores import log_probs

DTYPE = torch.float64


@given(st.integers(0, 2**31 - 1), st.sampled_from([1, 2]), st.sampled_from([1.0, 30.0]))
def test_a_score_moves_with_the_logits_as_its_slope_times_the_margin(seed, outputs, size):
    """And the slope's own derivative is the score's second one."""
    source = torch.Generator().manual_seed(seed)
    z = (size * torch.randn(5, outputs, generator=source, dtype=DTYPE)).requires_grad_()
    target = torch.randint(0, 2, (5,), generator=source)
    target = target if outputs == 2 else target.to(DTYPE)
    direction = torch.randn(5, outputs, generator=source, dtype=DTYPE)
    for score in MARGIN_SCORES:
        results = []
        (straight,) = torch.autograd.grad(score(z, target).sum(), z, create_graph=True)
        d = margin(z, target)
        (of_margin,) = torch.autograd.grad(d.sum(), z, create_graph=True)
        through = slope(score, d, target, outputs)[:, None] * of_margin
        for gradient in (through, straight):
            (second,) = torch.autograd.grad((gradient * direction).square().sum(), z, allow_unused=True)
            results.append((gradient.detach(), torch.zeros_like(z) if second is None else second))
        torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)


def test_the_slope_of_all_log_probabilities_is_the_hyperbolic_tangent_of_half_the_margin():
    d = torch.linspace(-20, 20, 9, dtype=DTYPE, requires_grad=True)
    torch.testing.assert_close(slope(log_probs, d, torch.zeros(9, dtype=torch.long), 2), -(d / 2).tanh())


@pytest.mark.parametrize(
    ("shape", "target"),
    [((3, 3), torch.tensor([0, 1, 2])), ((3, 2), torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]))],
)
def test_three_classes_and_several_labels_have_no_margin(shape, target):
    assert margin(torch.randn(shape), target) is None


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_output_is_its_own_margin(shape):
    z = torch.randn(shape)
    assert torch.equal(margin(z, torch.zeros(shape)), z.flatten())
