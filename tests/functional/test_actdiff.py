"""`functional.actdiff` against a slow loop written from the paper, and what has to hold for all inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import RangeError, ShapeError
from attribguard.functional import actdiff
from tests import oracles
from tests.strategies import generator, layer_pairs, seeds

NORMS = ("rms", "l2", "rows")
norms = pytest.mark.parametrize("norm", NORMS)
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-9}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def arrays(tensors):
    return [oracles.as_array(tensor) for tensor in tensors]


def two_passes(dtype, shapes=((3, 4, 5, 6), (3, 7), (3, 5, 2)), seed=0):
    source = generator(seed)
    return tuple(
        [torch.randn(shape, generator=source, dtype=torch.float64).to(dtype) for shape in shapes] for _ in range(2)
    )


@norms
@dtypes
@given(data=st.data())
def test_values_agree_with_the_oracle(norm, dtype, data):
    clean, corrupted = data.draw(layer_pairs(dtype=dtype))
    value = actdiff(clean, corrupted, norm)
    assert value.dtype == dtype
    expected = oracles.actdiff(arrays(clean), arrays(corrupted), norm)
    np.testing.assert_allclose(oracles.as_array(value), expected, rtol=TOLERANCE[dtype], atol=0)


@norms
@dtypes
@given(data=st.data())
def test_gradients_of_both_arguments_agree_with_the_oracle(norm, dtype, data):
    clean, corrupted = data.draw(layer_pairs(dtype=dtype))
    upstream = torch.randn(len(clean[0]), generator=generator(data.draw(seeds)), dtype=dtype)
    for tensor in (*clean, *corrupted):
        tensor.requires_grad_()
    (actdiff(clean, corrupted, norm) * upstream).sum().backward()
    expected = oracles.actdiff_gradient(arrays(clean), arrays(corrupted), norm, oracles.as_array(upstream))
    for side, gradients in zip((clean, corrupted), expected, strict=True):
        for tensor, gradient in zip(side, gradients, strict=True):
            np.testing.assert_allclose(oracles.as_array(tensor.grad), gradient, rtol=0, atol=TOLERANCE[dtype])


@norms
def test_the_oracles_gradient_is_the_slope_of_its_value(norm):
    """The oracle's two halves are held against each other, by central differences."""
    clean, corrupted = (arrays(side) for side in two_passes(torch.float64, shapes=((2, 3, 2), (2, 4))))
    upstream = np.array([0.7, -1.3])
    gradients = oracles.actdiff_gradient(clean, corrupted, norm, upstream)
    for side, of_side in zip((clean, corrupted), gradients, strict=True):
        for layer, gradient in zip(side, of_side, strict=True):
            for index in np.ndindex(layer.shape):
                kept, slope = layer[index], 0.0
                for sign in (1, -1):
                    layer[index] = kept + sign * 1e-6
                    slope += sign * (upstream * oracles.actdiff(clean, corrupted, norm)).sum() / 2e-6
                layer[index] = kept
                assert slope == pytest.approx(gradient[index], abs=1e-8)


def test_l2_is_equation_1_on_a_case_done_by_hand():
    clean = [torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[12.0], [1.0]])]
    corrupted = [torch.zeros(2, 2), torch.tensor([[0.0], [0.0]])]
    assert actdiff(clean, corrupted, "l2").tolist() == [(5 + 12) / 2, (0 + 1) / 2]


def test_rms_does_not_change_when_every_element_stands_there_twice():
    clean, corrupted = two_passes(torch.float64)
    doubled = [[torch.cat([layer, layer], dim=1) for layer in side] for side in (clean, corrupted)]
    torch.testing.assert_close(actdiff(*doubled), actdiff(clean, corrupted), rtol=1e-12, atol=0)


def test_rows_is_what_the_published_code_computes():
    """`PairwiseDistance` along the last axis, then the mean over all rows of all layers together."""
    clean, corrupted = two_passes(torch.float64)
    distance = torch.nn.PairwiseDistance(p=2)
    rows = [distance(a, b).reshape(len(a), -1) for a, b in zip(clean, corrupted, strict=True)]
    torch.testing.assert_close(actdiff(clean, corrupted, "rows"), torch.cat(rows, 1).mean(1), rtol=1e-12, atol=0)


def test_rms_is_the_default():
    clean, corrupted = two_passes(torch.float32)
    assert torch.equal(actdiff(clean, corrupted), actdiff(clean, corrupted, "rms"))
    assert not torch.equal(actdiff(clean, corrupted), actdiff(clean, corrupted, "l2"))


@norms
def test_first_and_second_derivatives_pass_gradcheck_away_from_zero_difference(norm):
    clean, corrupted = two_passes(torch.float64, shapes=((2, 2, 3), (2, 3)))
    layers = [tensor.requires_grad_() for tensor in (*clean, *corrupted)]

    def value(*tensors):
        return actdiff(tensors[:2], tensors[2:], norm)

    assert torch.autograd.gradcheck(value, layers)
    assert torch.autograd.gradgradcheck(value, layers)


@norms
@dtypes
def test_first_and_second_derivatives_are_finite_at_zero_difference(norm, dtype):
    clean = torch.randn(2, 3, 4, dtype=dtype, requires_grad=True)
    corrupted = clean.detach().clone().requires_grad_()
    value = actdiff([clean], [corrupted], norm)
    first = torch.autograd.grad(value.sum(), (clean, corrupted), create_graph=True)
    assert all(gradient.isfinite().all() for gradient in first)
    weighed = sum((gradient * torch.randn_like(gradient)).sum() for gradient in first)
    second = torch.autograd.grad(weighed, (clean, corrupted), allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in second)


@norms
def test_one_equal_row_leaves_the_gradient_of_the_others_finite_and_right(norm):
    """An image of which one layer and one row agree: the trap of `sqrt` at 0 is inside a sum that is not 0."""
    clean, corrupted = two_passes(torch.float64, shapes=((2, 3, 4), (2, 4)))
    corrupted[0][0] = clean[0][0]
    corrupted[1][1] = clean[1][1]
    layers = [tensor.requires_grad_() for tensor in (*clean, *corrupted)]
    actdiff(layers[:2], layers[2:], norm).sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in layers)
    assert layers[0].grad[1].abs().min() > 0
    assert layers[1].grad[0].abs().min() > 0


@pytest.mark.parametrize("norm", ["rms", "l2"])
def test_zero_difference_is_exactly_zero_with_zero_gradient_for_rms_and_l2(norm):
    clean = torch.randn(2, 3, 4, requires_grad=True)
    value = actdiff([clean], [clean.detach().clone()], norm)
    assert value.tolist() == [0.0, 0.0]
    value.sum().backward()
    assert torch.equal(clean.grad, torch.zeros_like(clean))


@norms
@given(pair=layer_pairs(dtype=torch.float32))
def test_values_are_finite_and_not_negative_and_one_an_image(norm, pair):
    value = actdiff(*pair, norm)
    assert value.shape == (len(pair[0][0]),)
    assert value.isfinite().all()
    assert (value >= 0).all()


@norms
@given(pair=layer_pairs(), seed=seeds)
def test_permuting_the_batch_permutes_the_result(norm, pair, seed):
    order = torch.randperm(len(pair[0][0]), generator=generator(seed))
    permuted = [[layer[order] for layer in side] for side in pair]
    torch.testing.assert_close(actdiff(*permuted, norm), actdiff(*pair, norm)[order], rtol=1e-12, atol=0)


@norms
@given(pair=layer_pairs())
def test_an_image_is_measured_alone(norm, pair):
    images = range(len(pair[0][0]))
    alone = torch.cat([actdiff(*[[layer[n : n + 1] for layer in side] for side in pair], norm) for n in images])
    torch.testing.assert_close(actdiff(*pair, norm), alone, rtol=1e-12, atol=0)


@norms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(norm, dtype):
    """1e-4 squared is 1e-8, which float16 rounds to 0; and 300 squared is more than it can hold."""
    clean = [torch.tensor([[1e-4, 2e-4], [300.0, 200.0]], dtype=dtype)]
    corrupted = [torch.zeros(2, 2, dtype=dtype)]
    value = actdiff(clean, corrupted, norm)
    assert value.dtype == torch.float32
    expected = oracles.actdiff(arrays(clean), arrays(corrupted), norm)
    np.testing.assert_allclose(oracles.as_array(value), expected, rtol=1e-6, atol=0)


def test_gradients_reach_both_passes():
    """Detaching either undoes the method: inverted-test AUC .010 and .747 instead of .997."""
    clean, corrupted = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    actdiff([clean], [corrupted]).sum().backward()
    assert clean.grad.abs().min() > 0
    assert torch.equal(clean.grad, -corrupted.grad)


@pytest.mark.parametrize(
    ("clean", "corrupted", "words"),
    [
        ([], [], ["at least one layer"]),
        ([(2, 3)], [], ["[(2, 3)]", "[]"]),
        ([(2, 3), (2, 4)], [(2, 3)], ["(2, 4)"]),
        ([(2, 3)], [(2, 4)], ["(2, 3)", "(2, 4)"]),
        ([(2, 3)], [(1, 3)], ["(2, 3)", "(1, 3)"]),
        ([(2, 3), (3, 3)], [(2, 3), (3, 3)], ["one batch size"]),
        ([(2,)], [(2,)], ["(N, ...)"]),
    ],
)
def test_layers_that_do_not_fit_each_other_are_refused(clean, corrupted, words):
    with pytest.raises(ShapeError) as caught:
        actdiff([torch.zeros(s) for s in clean], [torch.zeros(s) for s in corrupted])
    assert all(word in str(caught.value) for word in words)


def test_an_unknown_norm_is_refused_with_the_known_ones():
    with pytest.raises(RangeError, match=r"'L2'.*'rms', 'l2', 'rows'"):
        actdiff([torch.zeros(1, 1)], [torch.zeros(1, 1)], "L2")
