"""Cosines between the terms' gradients: by hand, over what both terms reach, and over batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from attribguard.errors import ModelError
from attribguard.probes.gradient_cosine import GradientCosine, gradient_cosine
from tests.strategies import generator, seeds

nan = float("nan")


def parameters(*shapes):
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def linear(seed, shared, own=None):
    """A term whose gradients are drawn from the seed, and the gradient with respect to what is shared, flat."""
    gradients = [torch.randn(p.shape, generator=generator(seed)) for p in shared]
    term = sum((g * p).sum() for g, p in zip(gradients, shared, strict=True))
    return term if own is None else term + own.square().sum(), torch.cat([g.flatten() for g in gradients]).double()


@given(seeds, st.integers(1, 4))
def test_it_is_the_cosine_between_the_whole_gradients(seed, n):
    shared = parameters((2, 3), (4,), (), (0, 2))
    terms, gradients = zip(*(linear(seed + i, shared) for i in range(n)), strict=True)
    cosines = gradient_cosine(dict(zip("abcd", terms, strict=False)), shared)
    unit = torch.stack([g / g.norm() for g in gradients])
    torch.testing.assert_close(cosines, unit @ unit.T, rtol=1e-6, atol=1e-6)


def test_only_the_parameters_that_both_terms_reach_count():
    u, v, w = parameters((3,), (3,), (3,))
    a, ga = linear(1, [v], own=u)
    b, gb = linear(2, [v], own=w)
    expected = (ga @ gb / (ga.norm() * gb.norm())).item()
    assert gradient_cosine({"a": a, "b": b}, [u, v, w])[0, 1].item() == pytest.approx(expected, rel=1e-6)


def test_a_further_term_changes_nothing_between_two_others():
    u, v, w = parameters((3,), (3,), (3,))
    terms = {"a": (u * v).sum(), "b": (v * w).sum() - v.sum()}
    alone = gradient_cosine(terms, [u, v, w])
    together = gradient_cosine({**terms, "c": (u * v * w).sum()}, [u, v, w])
    assert torch.equal(together[:2, :2], alone)


@given(seeds, st.floats(1e-6, 1e6))
def test_the_size_of_a_term_does_not_matter(seed, factor):
    shared = parameters((5,))
    a, b = linear(seed, shared)[0], linear(seed + 1, shared)[0]
    torch.testing.assert_close(
        gradient_cosine({"a": a, "b": factor * b}, shared), gradient_cosine({"a": a, "b": b}, shared)
    )


def test_tiny_gradients_do_not_underflow():
    (w,) = parameters((2,))
    cosines = gradient_cosine({"a": 1e-25 * w[0], "b": 1e-25 * w.sum()}, [w])
    assert cosines[0, 1].item() == pytest.approx(0.5**0.5)


@pytest.mark.parametrize(
    "term",
    [
        lambda w, other: 0 * w.sum(),
        lambda w, other: other.sum(),
        lambda w, other: torch.tensor(1.0),
        lambda w, other: torch.inf * w.sum(),
        lambda w, other: torch.nan * w.sum(),
    ],
    ids=["zero", "elsewhere", "constant", "infinite", "nan"],
)
def test_there_is_none_where_a_gradient_is_absent_zero_or_not_finite(term):
    w, other = parameters((3,), (3,))
    cosines = gradient_cosine({"a": w.square().sum(), "b": term(w, other)}, [w])
    assert cosines.isnan().tolist() == [[False, True], [True, True]]


def test_without_parameters_there_is_none():
    (w,) = parameters((3,))
    assert gradient_cosine({"a": w.sum()}, []).isnan().all()


def test_nothing_is_accumulated():
    (w,) = parameters((3,))
    gradient_cosine({"a": w.sum()}, [w])
    assert w.grad is None


def test_a_graph_that_goes_only_backward_is_refused():
    (w,) = parameters((3,))
    term = checkpoint(torch.square, w, use_reentrant=True).sum()
    with pytest.raises(ModelError, match="non-reentrant"):
        gradient_cosine({"a": term, "b": w.sum()}, [w])


def batches(*values):
    """(2, 2) matrices with these beside the diagonal."""
    return [torch.tensor([[1.0, value], [value, 1.0]], dtype=torch.float64) for value in values]


def test_over_batches_it_is_the_mean_with_its_standard_error():
    values = [0.5, -0.25, 0.125, 0.75]
    found = GradientCosine.over(["a", "b"], batches(*values))
    assert found.terms == ("a", "b")
    assert found.mean[0, 1] == found.mean[1, 0] == np.mean(values)
    assert found.error[0, 1] == pytest.approx(np.std(values, ddof=1) / 2)
    assert found.mean[0, 0] == 1 and found.error[0, 0] == 0
    assert found.skipped.tolist() == [[0, 0], [0, 0]]


def test_batches_without_a_cosine_are_left_out_and_counted():
    found = GradientCosine.over(["a", "b"], batches(nan, 0.5, nan, -0.5, 0.3))
    few = GradientCosine.over(["a", "b"], batches(0.5, -0.5, 0.3))
    assert found.skipped.tolist() == [[0, 2], [2, 0]]
    np.testing.assert_allclose(found.mean, few.mean, rtol=1e-14)
    np.testing.assert_allclose(found.error, few.error, rtol=1e-14)


@pytest.mark.parametrize(("values", "mean", "skipped"), [([0.5], 0.5, 0), ([nan, 0.5], 0.5, 1), ([nan, nan], nan, 2)])
def test_fewer_than_two_batches_have_no_error(values, mean, skipped):
    found = GradientCosine.over(["a", "b"], batches(*values))
    np.testing.assert_equal(found.mean[0, 1], mean)
    assert np.isnan(found.error[0, 1]) and found.skipped[0, 1] == skipped


def test_its_repr_names_the_terms_alone():
    assert repr(GradientCosine.over(["a", "b"], batches(0.5))) == "GradientCosine(terms=('a', 'b'))"
