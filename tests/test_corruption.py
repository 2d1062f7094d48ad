"""Corruption outside the mask: what each mode keeps and destroys, where its draws come from."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from attribguard import corrupt
from attribguard.corruption import Corruption
from attribguard.errors import AttribGuardError, RangeError, ShapeError, TypeMismatchError
from tests import oracles
from tests.strategies import generator, images_and_masks, seeds

MODES = ("shuffle", "zero", "mean", "blur")
modes = pytest.mark.parametrize("mode", MODES)


def rows(*tensors):
    return zip(*tensors, strict=True)


def distinct(n, height, width):
    """n times the same image of one channel, all of whose pixels differ."""
    return torch.arange(float(height * width)).view(1, 1, height, width).repeat(n, 1, 1, 1)


@given(pair=images_and_masks(), seed=seeds)
def test_shuffling_keeps_the_pixels_outside_and_their_colours(pair, seed):
    """As a multiset of whole pixels, channels together, image by image."""
    x, mask = pair
    shuffled = corrupt(x, mask, generator=generator(seed))
    for before, after, inside in rows(x, shuffled, mask[:, 0]):
        assert oracles.pixels_where(after, inside < 0.5) == oracles.pixels_where(before, inside < 0.5)


@modes
@given(pair=images_and_masks())
def test_every_mode_leaves_the_inside_bit_for_bit(mode, pair):
    x, mask = pair
    corrupted = corrupt(x, mask, mode)
    assert corrupted.shape == x.shape
    assert corrupted.dtype == x.dtype
    assert corrupted.isfinite().all()
    inside = mask.bool().expand_as(x)
    assert torch.equal(corrupted[inside], x[inside])


@modes
@given(pair=images_and_masks())
def test_the_callers_tensors_stay_as_they_are_and_the_result_is_new(mode, pair):
    x, mask = pair
    kept = x.clone(), mask.clone()
    corrupted = corrupt(x, mask, mode)
    corrupted.fill_(torch.nan)
    assert torch.equal(x, kept[0])
    assert torch.equal(mask, kept[1])


@modes
@given(pair=images_and_masks())
def test_a_full_mask_leaves_the_whole_image(mode, pair):
    x, mask = pair
    assert torch.equal(corrupt(x, torch.ones_like(mask), mode), x)


def test_an_empty_mask_shuffles_the_whole_image():
    x = distinct(1, 8, 8)
    shuffled = corrupt(x, torch.zeros(1, 8, 8))
    assert sorted(shuffled.flatten().tolist()) == sorted(x.flatten().tolist())
    assert (shuffled != x).sum() > 32


@modes
@pytest.mark.parametrize("relevant", [0.0, 1.0])
def test_an_image_of_one_pixel_is_corrupted_like_any_other(mode, relevant):
    x = torch.tensor([[[[3.0]], [[-2.0]]]])
    expected = torch.zeros_like(x) if mode == "zero" and not relevant else x
    torch.testing.assert_close(corrupt(x, torch.full((1, 1, 1), relevant), mode), expected)


@modes
def test_an_empty_batch_stays_one(mode):
    assert corrupt(torch.zeros(0, 3, 4, 5), torch.zeros(0, 1, 4, 5), mode).shape == (0, 3, 4, 5)


def test_each_call_shuffles_anew():
    x, mask = distinct(1, 8, 8), torch.zeros(1, 8, 8)
    assert not torch.equal(corrupt(x, mask), corrupt(x, mask))


def test_each_image_of_a_batch_is_shuffled_in_its_own_way():
    shuffled = corrupt(distinct(4, 8, 8), torch.zeros(4, 8, 8))
    assert len({tuple(image.flatten().tolist()) for image in shuffled}) == 4


def test_shuffling_is_the_default():
    x, mask = distinct(1, 8, 8), torch.zeros(1, 8, 8)
    assert torch.equal(corrupt(x, mask, generator=generator(1)), corrupt(x, mask, "shuffle", generator(1)))
    assert not torch.equal(corrupt(x, mask, generator=generator(1)), x)


def test_every_permutation_is_equally_likely():
    """Chi-square on three outside pixels of four; at 5 degrees of freedom 20.5 is passed once in a thousand."""
    draws = 6000
    x = distinct(2 * draws, 2, 2)
    # Two places for the relevant pixel in one batch: the places that are left depend on the row.
    mask = torch.zeros(2 * draws, 1, 2, 2)
    mask[:draws, :, 0, 1] = 1
    mask[draws:, :, 1, 0] = 1
    shuffled = corrupt(x, mask, generator=generator(0)).flatten(1).long()
    for part, outside in ((shuffled[:draws], [0, 2, 3]), (shuffled[draws:], [0, 1, 3])):
        counts = Counter(tuple(row) for row in part[:, outside].tolist())
        assert set(counts) == set(permutations(outside))
        expected = draws / 6
        assert sum((count - expected) ** 2 / expected for count in counts.values()) < 20.5


def test_a_generator_reproduces_the_shuffle_and_leaves_the_global_state():
    x, mask = distinct(2, 6, 6), torch.zeros(2, 6, 6)
    before = torch.get_rng_state()
    source = generator(7)
    first, second = corrupt(x, mask, generator=source), corrupt(x, mask, generator=source)
    assert torch.equal(torch.get_rng_state(), before)
    again = generator(7)
    assert torch.equal(corrupt(x, mask, generator=again), first)
    assert torch.equal(corrupt(x, mask, generator=again), second)
    assert not torch.equal(first, second)


def test_without_a_generator_the_global_state_decides_and_moves_on():
    x, mask = distinct(2, 6, 6), torch.zeros(2, 6, 6)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = corrupt(x, mask), corrupt(x, mask)
    assert not torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.equal(corrupt(x, mask), first)
    assert torch.equal(corrupt(x, mask), second)


@pytest.mark.parametrize("mode", ["zero", "mean", "blur"])
def test_the_other_modes_draw_nothing(mode):
    before = torch.get_rng_state()
    corrupt(torch.randn(2, 1, 4, 4, generator=generator(0)), torch.zeros(2, 4, 4), mode)
    assert torch.equal(torch.get_rng_state(), before)


@modes
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("channel_axis", [True, False])
def test_masks_of_every_type_and_of_both_shapes_mean_the_same(mode, dtype, channel_axis):
    x = torch.randn(3, 2, 5, 4)
    mask = (torch.rand(3, 1, 5, 4) < 0.4).float()
    expected = corrupt(x, mask, mode, generator(1))
    same = mask.to(dtype) if channel_axis else mask.to(dtype)[:, 0]
    assert torch.equal(corrupt(x, same, mode, generator(1)), expected)


@modes
def test_soft_masks_are_relevant_from_one_half_on(mode):
    """Bilinear resizing leaves 0.999 where the image is relevant."""
    x = torch.randn(2, 2, 6, 6)
    hard = (torch.rand(2, 1, 6, 6) < 0.5).float()
    soft = torch.where(hard.bool(), torch.tensor([0.5, 0.999]).view(2, 1, 1, 1), 0.4999)
    assert torch.equal(corrupt(x, soft, mode, generator(1)), corrupt(x, hard, mode, generator(1)))


@given(pair=images_and_masks())
def test_zero_is_the_image_times_its_mask(pair):
    x, mask = pair
    np.testing.assert_array_equal(corrupt(x, mask, "zero"), oracles.as_array(x) * oracles.as_array(mask))


@given(pair=images_and_masks())
def test_mean_agrees_with_the_oracle(pair):
    x, mask = pair
    for made, image, inside in rows(corrupt(x, mask, "mean"), x, mask[:, 0]):
        expected = oracles.mean_outside(oracles.as_array(image), inside.bool().numpy())
        np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-4)


@given(pair=images_and_masks(max_side=12))
def test_blur_is_scipys_gaussian_of_an_eighth_of_the_shorter_side(pair):
    """Mirrored at the border, as everywhere in images; outside alone. Values reach up to 900, hence the tolerance."""
    x, mask = pair
    blurred = corrupt(x, mask, "blur")
    for made, image, inside in rows(blurred, x, mask[:, 0]):
        for channel, before in rows(made, image):
            expected = ndimage.gaussian_filter(
                oracles.as_array(before), sigma=min(before.shape) / 8, mode="mirror", truncate=4
            )
            np.testing.assert_allclose(channel[inside == 0], expected[inside.numpy() == 0], rtol=1e-4, atol=2e-3)


def test_blur_is_exact_in_float64():
    x = torch.randn(1, 1, 40, 28, dtype=torch.float64)
    blurred = corrupt(x, torch.zeros(1, 40, 28), "blur")[0, 0]
    expected = ndimage.gaussian_filter(x[0, 0].numpy(), sigma=3.5, mode="mirror", truncate=4)
    np.testing.assert_allclose(blurred, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["zero", "mean", "blur"])
def test_what_lies_outside_can_no_longer_be_told_apart_by_its_mean_or_less(mode):
    """A bright pixel outside is gone, or spread."""
    x = torch.zeros(1, 1, 16, 16)
    x[..., 12, 12] = 100
    mask = torch.zeros(1, 16, 16)
    mask[:, :6, :6] = 1
    assert corrupt(x, mask, mode).max() < 10


@modes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_images_keep_their_type_and_do_not_overflow(mode, dtype):
    """300 x 300 pixels of 1 add up to more than float16 can hold."""
    corrupted = corrupt(torch.ones(1, 1, 300, 300, dtype=dtype), torch.zeros(1, 300, 300), mode)
    assert corrupted.dtype == dtype
    torch.testing.assert_close(
        corrupted.float(), torch.full((1, 1, 300, 300), 0.0 if mode == "zero" else 1.0), atol=0.01, rtol=0
    )


@modes
def test_channels_last_images_give_the_same(mode):
    x, mask = torch.randn(2, 3, 8, 6), (torch.rand(2, 1, 8, 6) < 0.5).float()
    expected = corrupt(x, mask, mode, generator(1))
    made = corrupt(x.to(memory_format=torch.channels_last), mask, mode, generator(1))
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-6)


@modes
def test_integer_images_stay_integer(mode):
    x = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    assert corrupt(x, torch.zeros(2, 8, 8), mode).dtype == torch.uint8


@modes
def test_gradients_flow_through_to_the_pixels_that_are_kept(mode):
    x = torch.randn(2, 2, 6, 6, requires_grad=True)
    mask = (torch.rand(2, 1, 6, 6) < 0.5).float()
    corrupt(x, mask, mode, generator(0)).sum().backward()
    assert x.grad.isfinite().all()
    if mode == "shuffle":
        assert torch.equal(x.grad, torch.ones_like(x))
    if mode == "zero":
        assert torch.equal(x.grad, mask.expand_as(x))


def test_a_callable_gets_the_images_and_the_mask_with_its_channel_axis():
    seen = []

    def invert(x, mask):
        seen.append((x, mask))
        return torch.where(mask > 0, x, -x)

    x, mask = torch.randn(2, 3, 4, 4), torch.ones(2, 4, 4)
    mask[:, 0] = 0
    made = corrupt(x, mask, invert)
    assert torch.equal(seen[0][0], x)
    assert torch.equal(seen[0][1], mask[:, None])
    assert torch.equal(made[:, :, 0], -x[:, :, 0])
    assert torch.equal(made[:, :, 1:], x[:, :, 1:])


def test_a_callable_that_works_in_place_leaves_the_callers_images():
    x, mask = torch.randn(2, 3, 4, 4), torch.ones(2, 4, 4)
    kept = x.clone()
    assert corrupt(x, mask, lambda x, mask: x.zero_()).eq(0).all()
    assert torch.equal(x, kept)


def test_a_callable_that_changes_the_shape_is_refused():
    with pytest.raises(ShapeError) as caught:
        corrupt(torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4), lambda x, mask: x[..., :2, :2])
    assert "(2, 3, 2, 2)" in caught.value.got
    assert "(2, 3, 4, 4)" in caught.value.needed


def test_a_callable_that_changes_the_type_is_refused():
    with pytest.raises(AttribGuardError, match=r"float64.*float32"):
        corrupt(torch.zeros(2, 3, 4, 4), torch.ones(2, 4, 4), lambda x, mask: x.double())


@pytest.mark.parametrize(
    ("images", "mask"),
    [
        ((3, 4, 4), (3, 4, 4)),
        ((2, 1, 3, 4, 4), (2, 1, 4, 4)),
        ((2, 3, 4, 4), (1, 4, 4)),
        ((2, 3, 4, 4), (3, 1, 4, 4)),
        ((2, 3, 4, 4), (2, 3, 4, 4)),
        ((2, 3, 4, 5), (2, 1, 5, 4)),
        ((2, 3, 4, 4), (4, 4)),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused_by_what_came(images, mask):
    with pytest.raises(ShapeError) as caught:
        corrupt(torch.zeros(images), torch.zeros(mask))
    assert str(images) in caught.value.got
    assert len(images) != 4 or f"a mask of shape {mask}" in caught.value.got


@pytest.mark.parametrize("mode", ["shufle", "", None])
def test_an_unknown_mode_is_refused_with_the_known_ones(mode):
    for refused in (lambda: corrupt(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2), mode), lambda: Corruption(mode)):
        with pytest.raises(RangeError, match="'shuffle', 'zero', 'mean', 'blur'") as caught:
            refused()
        assert repr(mode) in caught.value.got


@pytest.fixture(scope="module")
def compiled():
    torch._dynamo.reset()
    yield torch.compile(corrupt, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()


@modes
def test_compiled_without_a_graph_break_it_gives_the_same(mode, compiled):
    x = torch.randn(3, 2, 6, 7)
    for share in (0.3, 0.0, 1.0):
        mask = (torch.rand(3, 1, 6, 7) < share).float()
        torch.manual_seed(5)
        eager = corrupt(x, mask, mode)
        torch.manual_seed(5)
        torch.testing.assert_close(compiled(x, mask, mode), eager, rtol=1e-6, atol=1e-6)


def test_equal_corruptions_are_equal_so_that_they_share_a_pass():
    def custom(x, mask):
        return x

    assert Corruption("zero", 2) == Corruption("zero", dilate=2)
    assert hash(Corruption("zero", 2)) == hash(Corruption("zero", dilate=2))
    assert Corruption(custom) == Corruption(custom)
    assert len({Corruption("zero", 2), Corruption("zero", 1), Corruption("mean", 2), Corruption(custom)}) == 4


@given(pair=images_and_masks(), dilate=st.integers(0, 2))
def test_a_corruption_keeps_the_region_and_the_context_around_it(pair, dilate):
    x, mask = pair
    for made, image, inside in rows(Corruption("zero", dilate)(x, mask), x, mask[:, 0]):
        kept = oracles.dilated(inside.numpy(), dilate)
        np.testing.assert_array_equal(made, image.numpy() * kept)


@pytest.mark.parametrize(
    ("dilate", "error"),
    [(-1, RangeError), (1.5, TypeMismatchError), ("2", TypeMismatchError), (True, TypeMismatchError)],
)
def test_a_dilation_that_is_no_number_of_pixels_is_refused_when_it_is_made(dilate, error):
    with pytest.raises(error, match=f"dilate={dilate!r}"):
        Corruption("zero", dilate)
