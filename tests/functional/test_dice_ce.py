"""`functional.dice_ce` against loops written from the equations, against golden numbers, and for all inputs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.functional import dice_ce
from tests.losses import oracles
from tests.oracles import as_array
from tests.strategies import generator, seeds, small

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "dice_ce.npz")
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-9}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
forms = pytest.mark.parametrize("form", [(o, s) for o in ("sample", "batch") for s in (False, True)], ids=str)
sets = pytest.mark.parametrize("name", ["bin", "multi"])
TINY = 1e-13  # the equation has no smoothing


def golden(name, dtype=torch.float64):
    mask = torch.from_numpy(GOLDEN[f"{name}__mask"])
    return torch.from_numpy(GOLDEN[f"{name}__logits"]).to(dtype), mask


def number(name):
    return float(GOLDEN[name])


@st.composite
def segmentations(draw, dtype=torch.float64, ignored=True):
    """Logits (N, K, H, W) and classes (N, H, W), with ignored pixels (-100) and, at times, none but ignored ones."""
    source = generator(draw(seeds))
    n, outputs, height, width = draw(small), draw(small), draw(small), draw(small)
    scale = draw(st.sampled_from([0.1, 3.0, 20.0]))
    logits = scale * torch.randn(n, outputs, height, width, generator=source, dtype=torch.float64)
    target = torch.randint(0, max(outputs, 2), (n, height, width), generator=source)
    if ignored:
        share = torch.tensor(draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=n, max_size=n)))
        target[torch.rand(target.shape, generator=source) < share.view(n, 1, 1)] = -100
    return logits.to(dtype), target


@forms
@dtypes
@given(data=st.data())
def test_values_agree_with_the_equations(form, dtype, data):
    logits, target = data.draw(segmentations(dtype))
    settings = {"over": form[0], "squared": form[1]}
    value = dice_ce(logits, target, **settings)
    assert value.dtype == dtype
    expected = oracles.dice_ce(as_array(logits), target.numpy(), **settings)
    np.testing.assert_allclose(as_array(value), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@sets
@dtypes
def test_squared_over_the_batch_is_the_swin_unet_trainers_loss(name, dtype):
    logits, mask = golden(name, dtype)
    trainers = {"over": "batch", "squared": True}
    total = dice_ce(logits, mask, **trainers).mean()
    assert total.item() == pytest.approx(number(f"{name}__swinunet_total_04ce_06dice"), rel=TOLERANCE[dtype])
    logits.requires_grad_()
    dice = dice_ce(logits, mask, ce=0.0, dice=1.0, **trainers).mean()
    assert dice.item() == pytest.approx(number(f"{name}__swinunet_dice"), rel=TOLERANCE[dtype])
    dice.backward()
    gradient = GOLDEN[f"{name}__swinunet_dice_grad"]
    np.testing.assert_allclose(as_array(logits.grad), gradient, rtol=0, atol=TOLERANCE[dtype])


@sets
def test_parts_are_equations_1_to_3_as_printed(name):
    logits, mask = golden(name)
    entropy = dice_ce(logits, mask, ce=1.0, dice=0.0)
    assert entropy.mean().item() == pytest.approx(number(f"{name}__ce_mean"), rel=1e-9)
    pixels = mask[0].numel()
    assert (entropy * pixels).sum().item() == pytest.approx(number(f"{name}__seed_ce_sum"), rel=1e-9)
    dice = dice_ce(logits, mask, ce=0.0, dice=1.0, smooth=TINY)
    np.testing.assert_allclose(as_array(dice), GOLDEN[f"{name}__seed_dice_per_sample_class"].mean(1), rtol=1e-9)
    over_batch = dice_ce(logits, mask, ce=0.0, dice=1.0, over="batch", smooth=TINY).mean()
    assert over_batch.item() == pytest.approx(number(f"{name}__seed_dice_mean_over_classes"), rel=1e-9)
    assert over_batch.item() == pytest.approx(number(f"{name}__smp_dice_multiclass"), rel=1e-9)
    total = dice_ce(logits, mask, over="batch", smooth=TINY).mean()
    assert total.item() == pytest.approx(number(f"{name}__seed_seg_04ce_06dice"), rel=1e-9)


def test_one_channel_is_the_dice_of_the_foregrounds_sigmoid():
    logits, mask = golden("bin")
    dice = dice_ce(logits[:, 1:], mask, ce=0.0, dice=1.0, over="batch", smooth=TINY).mean()
    assert dice.item() == pytest.approx(number("bin__smp_dice_binary_sigmoid_ch1"), rel=1e-9)
    entropy = dice_ce(logits[:, 1:], mask, ce=1.0, dice=0.0).mean()
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 1], mask.double())
    torch.testing.assert_close(entropy, theirs, rtol=1e-12, atol=0)


def test_an_empty_mask_predicted_with_certainty_costs_nothing():
    logits, mask = golden("empty")
    assert number("empty__swinunet_dice") == 0
    for over in ("sample", "batch"):
        value = dice_ce(logits, mask, over=over, squared=True)
        assert value.shape == (2,)
        assert (value >= 0).all()
        assert value.max().item() < 1e-9


@forms
@given(segmentations(torch.float32))
def test_values_are_finite_and_not_negative_and_one_an_image(form, case):
    value = dice_ce(*case, over=form[0], squared=form[1])
    assert value.shape == (len(case[0]),)
    assert value.isfinite().all()
    assert (value >= 0).all()


@forms
@given(case=segmentations(), seed=seeds)
def test_permuting_the_batch_permutes_the_result(form, case, seed):
    order = torch.randperm(len(case[0]), generator=generator(seed))
    value = dice_ce(*case, over=form[0], squared=form[1])
    permuted = dice_ce(case[0][order], case[1][order], over=form[0], squared=form[1])
    torch.testing.assert_close(permuted, value[order], rtol=1e-12, atol=1e-12)


@given(segmentations())
def test_over_samples_an_image_is_measured_alone(case):
    alone = torch.cat([dice_ce(z[None], t[None]) for z, t in zip(*case, strict=True)])
    torch.testing.assert_close(dice_ce(*case), alone, rtol=1e-12, atol=0)


@given(segmentations(ignored=False))
def test_the_batchs_dice_is_the_dice_of_one_long_image(case):
    logits, target = case
    dice = {"ce": 0.0, "dice": 1.0}
    value = dice_ce(logits, target, over="batch", **dice)
    long = dice_ce(torch.cat(list(logits), dim=1)[None], torch.cat(list(target))[None], **dice)
    torch.testing.assert_close(value, long.expand(len(logits)), rtol=1e-12, atol=1e-15)


@forms
@given(segmentations())
def test_ignored_pixels_change_nothing_even_where_they_are_nan(form, case):
    logits, target = case
    settings = {"over": form[0], "squared": form[1]}
    broken = logits.masked_fill((target == -100)[:, None], float("nan")).requires_grad_()
    value = dice_ce(broken, target, **settings)
    assert torch.equal(value, dice_ce(logits, target, **settings))
    value.sum().backward()
    assert broken.grad.isfinite().all()
    assert not broken.grad[(target == -100)[:, None].expand_as(logits)].any()
    empty = (target == -100).flatten(1).all(1)
    assert not value[empty].any()


@pytest.mark.parametrize("ignore_index", [255, 0, -1])
def test_a_pixel_of_any_ignored_class_does_not_count(ignore_index):
    logits, target = torch.randn(3, 4, 4, 5), torch.randint(1, 4, (3, 4, 5))
    away = torch.rand(target.shape) < 0.4
    expected = dice_ce(logits, target.masked_fill(away, -100))
    assert torch.equal(dice_ce(logits, target.masked_fill(away, ignore_index), ignore_index=ignore_index), expected)


def test_a_type_that_cannot_hold_ignore_index_ignores_nothing():
    """156 as uint8 is -100 when it is compared as uint8."""
    with pytest.raises(RangeError, match="156"):
        dice_ce(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 156]]], dtype=torch.uint8))


@forms
@pytest.mark.parametrize("outputs", [1, 3])
def test_first_and_second_derivatives_pass_gradcheck(form, outputs):
    logits = torch.randn(2, outputs, 2, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, max(outputs, 2), (2, 2, 3))
    target[0, 0, :2] = -100

    def value(z):
        return dice_ce(z, target, over=form[0], squared=form[1])

    assert torch.autograd.gradcheck(value, [logits])
    assert torch.autograd.gradgradcheck(value, [logits])


@forms
@dtypes
@pytest.mark.parametrize("outputs", [1, 2])
def test_values_and_two_derivatives_are_finite_at_any_logit(form, dtype, outputs):
    sizes = torch.tensor([0.0, 80.0, -80.0, 104.0, -104.0, 1e4, -1e4, 1e30], dtype=dtype)
    logits = torch.stack([sizes, -sizes, -sizes, sizes])[:, None, None].expand(-1, outputs, 1, -1).clone()
    logits[:, 1:] = -logits[:, 1:]
    logits.requires_grad_()
    value = dice_ce(logits, torch.tensor([0, 1]).repeat(4, 1, 4), over=form[0], squared=form[1])
    (first,) = torch.autograd.grad(value.sum(), logits, create_graph=True)
    (second,) = torch.autograd.grad((first * torch.rand_like(first)).sum(), logits)
    assert value.isfinite().all()
    assert first.isfinite().all()
    assert second.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(dtype):
    """A smoothing of 1e-5 and sums over 70,000 pixels are beyond float16."""
    logits = torch.randn(1, 2, 300, 300).to(dtype)
    target = torch.randint(0, 2, (1, 300, 300))
    value = dice_ce(logits, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, dice_ce(logits.double(), target).float(), rtol=1e-6, atol=0)


def test_a_compiled_graph_has_no_break_for_looking_at_values():
    torch.compiler.reset()
    logits, mask = golden("multi")
    compiled = torch.compile(dice_ce, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, mask), dice_ce(logits, mask))


ZEROS, CLASSES = torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5, dtype=torch.long)


@pytest.mark.parametrize(
    ("logits", "target", "error", "words"),
    [
        (ZEROS, CLASSES[:, None], ShapeError, ["(2, 1, 4, 5)", "needed (2, 4, 5)", "squeeze(1)"]),
        (ZEROS, CLASSES[:, :2], ShapeError, ["(2, 2, 5)", "interpolate"]),
        (ZEROS[:, :, 0], CLASSES[:, 0], ShapeError, ["(2, 3, 5)", "(N, K, H, W)"]),
        (ZEROS[:0], CLASSES[:0], ShapeError, ["(0, 3, 4, 5)"]),
        (ZEROS, CLASSES + 3, RangeError, ["3 to 3", "0 to 2", "ignore_index"]),
        (ZEROS, CLASSES - 1, RangeError, ["-1 to -1"]),
        (ZEROS[:, :1], CLASSES + 2, RangeError, ["0 to 1 for 1 channel"]),
        (ZEROS, CLASSES.float(), TypeMismatchError, ["torch.float32", ".long()"]),
        (ZEROS, CLASSES.bool(), TypeMismatchError, ["torch.bool", ".long()"]),
        (ZEROS, CLASSES.tolist(), TypeMismatchError, ["target of list"]),
        (ZEROS.long(), CLASSES, TypeMismatchError, ["logits of torch.int64"]),
        (ZEROS, CLASSES.to("meta"), TypeMismatchError, ["meta", "cpu"]),
    ],
)
def test_logits_and_targets_that_do_not_fit_are_refused(logits, target, error, words):
    with pytest.raises(error) as caught:
        dice_ce(logits, target)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("setting", "value", "error"),
    [
        ("ce", -0.1, RangeError),
        ("dice", float("nan"), RangeError),
        ("smooth", 0.0, RangeError),
        ("smooth", "1", TypeMismatchError),
        ("over", "image", RangeError),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(setting, value, error):
    with pytest.raises(error, match=setting):
        dice_ce(ZEROS, CLASSES, **{setting: value})
