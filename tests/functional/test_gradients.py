"""GradMask, RRR and maps as plain functions: oracles, derivatives, properties."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import RangeError, ShapeError
from attribguard.functional import class_activation_map, gradcam_rrr, gradmask, normalize_map, rrr
from tests.functional.oracles import cam_by_loops, outside_by_loops

seeds = st.integers(0, 2**31 - 1)


def maps(seed, dtype=torch.float64, n=3):
    generator = torch.Generator().manual_seed(seed)
    gradient = torch.randn(n, 2, 4, 3, generator=generator, dtype=dtype)
    mask = (torch.rand(n, 1, 4, 3, generator=generator) < 0.4).to(dtype)
    return gradient, mask


@given(seeds)
def test_each_norm_is_the_loop_over_pixels_outside(seed):
    gradient, mask = maps(seed)
    outside = outside_by_loops(gradient, mask)
    expected = {
        "l1": [sum(abs(v) for v in values) for values in outside],
        "squared": [sum(v * v for v in values) for values in outside],
        "l2": [sum(v * v for v in values) ** 0.5 for values in outside],
    }
    for norm, values in expected.items():
        torch.testing.assert_close(gradmask(gradient, mask, norm), torch.tensor(values, dtype=torch.float64))
        single = gradmask(gradient.float(), mask, norm)
        torch.testing.assert_close(single, torch.tensor(values), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(rrr(gradient, mask), torch.tensor(expected["squared"], dtype=torch.float64))
    torch.testing.assert_close(rrr(gradient, mask, "mean"), rrr(gradient, mask) / gradient[0].numel())
    torch.testing.assert_close(gradcam_rrr(gradient[:, 0], mask), gradmask(gradient[:, :1], mask, "squared"))


@given(seeds)
def test_a_larger_mask_never_raises_the_penalty_and_the_full_one_gives_zero(seed):
    gradient, mask = maps(seed)
    larger = torch.maximum(mask, maps(seed + 1)[1])
    for penalty in (gradmask, rrr, lambda g, m: gradmask(g, m, "l1")):
        assert (penalty(gradient, larger) <= penalty(gradient, mask)).all()
        assert (penalty(gradient, torch.ones_like(mask)) == 0).all()


@given(seeds)
def test_permuting_the_batch_permutes_the_result(seed):
    gradient, mask = maps(seed)
    order = torch.tensor([2, 0, 1])
    for penalty in (gradmask, rrr):
        torch.testing.assert_close(penalty(gradient[order], mask[order]), penalty(gradient, mask)[order])


@pytest.mark.parametrize(
    "penalty", [gradmask, rrr, lambda g, m: rrr(g, m, "mean"), lambda g, m: gradmask(g, m, "squared")]
)
def test_first_and_second_derivatives(penalty):
    gradient, mask = maps(0)
    gradient.requires_grad_()
    assert torch.autograd.gradcheck(lambda g: penalty(g, mask), gradient)
    assert torch.autograd.gradgradcheck(lambda g: penalty(g, mask), gradient)


@pytest.mark.parametrize("norm", ["l2", "l1", "squared"])
def test_derivatives_are_finite_at_zero(norm):
    gradient = torch.zeros(2, 1, 3, 3, requires_grad=True)
    value = gradmask(gradient, torch.zeros(2, 1, 3, 3), norm)
    (first,) = torch.autograd.grad(value.sum(), gradient, create_graph=True)
    second = torch.autograd.grad(first.sum(), gradient, allow_unused=True)[0] if first.requires_grad else None
    assert (value == 0).all()
    assert (first == 0).all()
    assert second is None or second.isfinite().all()


def test_half_precision_is_computed_in_float32():
    gradient = torch.full((1, 1, 2, 2), 1e-4, dtype=torch.float16)
    torch.testing.assert_close(rrr(gradient, torch.zeros(1, 2, 2)), gradient.float().square().sum((1, 2, 3)))


@given(seeds)
def test_maps_are_the_loops_over_channels_and_places(seed):
    features, _ = maps(seed)
    gradient, _ = maps(seed + 1)
    for method in ("gradcam", "hirescam"):
        expected = cam_by_loops(features, gradient, method)
        torch.testing.assert_close(class_activation_map(features, gradient, method), expected)
    constant = gradient.mean((2, 3), keepdim=True)
    torch.testing.assert_close(class_activation_map(features, constant), cam_by_loops(features, gradient, "gradcam"))


@given(seeds)
def test_normalised_maps_lie_in_their_range(seed):
    cam = maps(seed)[0][:, 0]
    stretched = normalize_map(cam, "minmax")
    assert (stretched >= 0).all() and (stretched <= 1).all()
    assert (normalize_map(cam.relu(), "max") <= 1).all()
    assert torch.equal(normalize_map(cam, "none"), cam)
    assert normalize_map(torch.zeros(1, 2, 2), "max").eq(0).all()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: gradmask(torch.rand(2, 1, 3, 3), torch.rand(2, 1, 3, 3), "linf"), RangeError),
        (lambda: rrr(torch.rand(2, 1, 3, 3), torch.rand(2, 1, 3, 3), "median"), RangeError),
        (lambda: gradmask(torch.rand(2, 3, 3, 3), torch.rand(2, 3, 3, 3)), ShapeError),
        (lambda: rrr(torch.rand(2, 1, 3, 3), torch.rand(3, 3, 3)), ShapeError),
        (lambda: gradcam_rrr(torch.rand(2, 3, 3), torch.rand(2, 1, 6, 6)), ShapeError),
        (lambda: class_activation_map(torch.rand(2, 1, 3, 3), torch.rand(2, 1, 3, 3), "cam"), RangeError),
        (lambda: class_activation_map(torch.rand(2, 1, 3, 3), torch.rand(2, 3, 3, 3)), ShapeError),
        (lambda: normalize_map(torch.rand(2, 3, 3), "softmax"), RangeError),
    ],
)
def test_bad_input_is_one_clear_error(call, error):
    with pytest.raises(error, match=r"got .*; needed .*; "):
        call()
