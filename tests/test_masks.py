"""Masks against slow loops, and the polarity that everything else relies on: 1 = relevant."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from attribguard import masks
from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from tests import oracles
from tests.strategies import boxes as drawn_boxes
from tests.strategies import generator, seeds, soft_masks

sides = st.integers(1, 6)


def test_a_pixel_counts_as_relevant_from_one_half_on():
    values = torch.tensor([0.0, 0.4999, 0.5, 0.999, 1.0])
    assert masks.inside(values).tolist() == [False, False, True, True, True]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=str)
def test_inside_reads_masks_of_every_type(dtype):
    assert masks.inside(torch.tensor([0, 1]).to(dtype)).tolist() == [False, True]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=str)
def test_from_irrelevant_turns_the_polarity_round_for_every_type(dtype):
    ruler = torch.tensor([[0, 1], [0, 0]]).to(dtype)
    relevant = masks.from_irrelevant(ruler)
    assert relevant.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert relevant.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert ruler.tolist() == [[0, 1], [0, 0]]


@given(soft_masks())
def test_from_irrelevant_twice_is_the_mask_itself(mask):
    torch.testing.assert_close(masks.from_irrelevant(masks.from_irrelevant(mask)), mask)


@given(st.data())
def test_boxes_are_filled_as_the_oracle_fills_them(data):
    height, width = data.draw(sides), data.draw(sides)
    images = data.draw(st.lists(drawn_boxes(height, width), min_size=1, max_size=3))
    made = masks.from_boxes([torch.tensor(boxes).reshape(-1, 4) for boxes in images], (height, width))
    assert made.shape == (len(images), 1, height, width)
    assert made.dtype == torch.float32
    for mask, boxes in zip(made, images, strict=True):
        np.testing.assert_array_equal(mask[0], oracles.boxes_filled(boxes, (height, width)))


def test_one_box_an_image_comes_as_one_tensor():
    boxes = torch.tensor([[0, 0, 1, 2], [1, 1, 3, 2]])
    made = masks.from_boxes(boxes, (2, 3))
    assert made[:, 0].tolist() == [[[1, 0, 0], [1, 0, 0]], [[0, 0, 0], [0, 1, 1]]]
    assert torch.equal(made, masks.from_boxes([box[None] for box in boxes], (2, 3)))


def test_a_box_of_whole_pixels_is_an_array_slice():
    made = masks.from_boxes(torch.tensor([[1, 2, 4, 3]]), (5, 6))
    sliced = torch.zeros(5, 6)
    sliced[2:3, 1:4] = 1
    assert torch.equal(made[0, 0], sliced)


def test_a_box_one_pixel_wide_fills_one_pixel_wherever_it_stands():
    made = masks.from_boxes(torch.tensor([[x, 0, x + 1, 1] for x in (0.0, 0.25, 0.5, 0.75, 1.0)]), (1, 3))
    assert made.sum((1, 2, 3)).tolist() == [1.0] * 5


def test_no_box_gives_an_empty_mask_and_no_image_no_mask():
    assert masks.from_boxes([torch.zeros(0, 4), torch.tensor([[0, 0, 1, 1]])], (1, 1)).flatten().tolist() == [0.0, 1.0]
    assert masks.from_boxes(torch.zeros(0, 4), (2, 3)).shape == (0, 1, 2, 3)


@pytest.mark.parametrize(
    "box",
    [
        (1, 0, 1, 1),  # empty
        (2, 0, 1, 1),  # turned round
        (0, 1, 1, 0),
        (-1, 0, 1, 1),  # outside
        (0, -1, 1, 1),
        (0, 0, 4, 1),
        (0, 0, 1, 3),
        (float("nan"), 0, 1, 1),
        (0, 0, float("inf"), 1),
    ],
)
def test_boxes_that_are_none_are_refused_by_their_coordinates(box):
    good = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    with pytest.raises(RangeError) as caught:
        masks.from_boxes([good, torch.cat([good, torch.tensor([box])])], (2, 3))
    assert str([float(side) for side in box]) in str(caught.value)
    assert "x1 <= 3" in caught.value.needed
    assert "y1 <= 2" in caught.value.needed


@pytest.mark.parametrize("boxes", [torch.ones(2, 3), torch.ones(4), [torch.ones(4)], [torch.ones(1, 2, 4)]])
def test_boxes_without_four_coordinates_are_refused(boxes):
    with pytest.raises(ShapeError, match="x0, y0, x1, y1"):
        masks.from_boxes(boxes, (5, 5))


@given(height=st.integers(1, 9), width=st.integers(1, 9), quarters=st.one_of(st.none(), st.integers(1, 40)))
def test_circle_agrees_with_the_oracle(height, width, quarters):
    radius = None if quarters is None else quarters / 4
    made = masks.circle((height, width), radius)
    assert made.shape == (1, 1, height, width)
    assert made.dtype == torch.float32
    expected = oracles.disc((height, width), min(height, width) / 2 if radius is None else radius)
    np.testing.assert_array_equal(made[0, 0], expected)


@pytest.mark.parametrize("radius", [0, -1.0, float("nan")])
def test_circle_without_a_radius_above_zero_is_refused(radius):
    with pytest.raises(RangeError, match="radius"):
        masks.circle((4, 4), radius)


@given(mask=soft_masks(), radius=st.integers(0, 8))
def test_dilate_agrees_with_the_oracle_and_with_scipy(mask, radius):
    grown = masks.dilate(mask, radius)
    assert grown.shape == mask.shape
    for row, original in zip(grown[:, 0].numpy(), mask[:, 0].numpy(), strict=True):
        np.testing.assert_array_equal(row, oracles.dilated(original, radius))
        filtered = ndimage.maximum_filter(original, size=2 * radius + 1, mode="constant", cval=0.0)
        np.testing.assert_array_equal(row, filtered)


@given(mask=soft_masks(), radius=st.integers(0, 3))
def test_dilate_takes_masks_without_the_channel_axis(mask, radius):
    assert torch.equal(masks.dilate(mask[:, 0], radius), masks.dilate(mask, radius)[:, 0])


@given(mask=soft_masks(), first=st.integers(0, 2), second=st.integers(0, 2))
def test_dilating_twice_is_dilating_by_the_sum(mask, first, second):
    assert torch.equal(masks.dilate(masks.dilate(mask, first), second), masks.dilate(mask, first + second))


@pytest.mark.parametrize("sigma", [0.1, 0.125, 0.4, 0.5, 1.0, 1.3, 2.0])
def test_sigma_is_the_published_blur_and_everything_above_zero(sigma):
    source = generator(0)
    for _ in range(5):
        mask = (torch.rand(2, 1, 24, 17, generator=source) > 0.985).float()
        for grown, original in zip(masks.dilate(mask, sigma=sigma)[:, 0], mask[:, 0], strict=True):
            blurred = ndimage.gaussian_filter(original.double().numpy(), sigma=sigma, truncate=4)
            np.testing.assert_array_equal(grown, blurred > 0)


@pytest.mark.parametrize(("sigma", "pixels"), [(0, 0), (0.5, 2), (8, 32), (16, 64)])
def test_the_papers_sigmas_are_these_many_pixels(sigma, pixels):
    mask = torch.zeros(1, 1, 160, 160)
    mask[..., 80, 80] = 1
    assert torch.equal(masks.dilate(mask, sigma=sigma), masks.dilate(mask, pixels))
    assert masks.dilate(mask, sigma=sigma).sum() == (2 * pixels + 1) ** 2


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(("pixels", "expected"), [(0, [0, 0, 1, 0, 0, 0]), (1, [0, 1, 1, 1, 0, 0])])
def test_dilate_reads_masks_of_every_type_and_leaves_them_as_they_are(dtype, pixels, expected):
    mask = torch.tensor([[[0, 0, 1, 0, 0, 0]]]).to(dtype)
    grown = masks.dilate(mask, pixels)
    assert grown.tolist() == [[expected]]
    assert grown.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert mask.tolist() == [[[0, 0, 1, 0, 0, 0]]]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"pixels": 1, "sigma": 1.0},
        {"pixels": 0, "sigma": 0.0},
        {"pixels": -1},
        {"pixels": 1.5},
        {"pixels": float("nan")},
        {"sigma": -0.1},
        {"sigma": -3.0},
        {"sigma": float("nan")},
        {"sigma": float("inf")},
    ],
    ids=str,
)
def test_dilate_by_anything_but_one_whole_radius_or_one_sigma_is_refused(arguments):
    with pytest.raises(RangeError, match=r"pixels=|sigma="):
        masks.dilate(torch.zeros(1, 3, 3), **arguments)


@pytest.mark.parametrize(
    ("pixels", "error"),
    [(-1, RangeError), (1.0, TypeMismatchError), ("1", TypeMismatchError), (True, TypeMismatchError)],
)
def test_check_pixels_refuses_all_but_whole_numbers_from_0_on(pixels, error):
    with pytest.raises(error, match=f"dilate={pixels!r}"):
        masks.check_pixels(pixels)
    assert [masks.check_pixels(whole) for whole in (0, 1, 32)] == [0, 1, 32]


@pytest.mark.parametrize("shape", [(3, 3), (1, 1, 1, 3, 3), (1, 3, 3, 3)], ids=str)
def test_dilate_of_anything_but_a_batch_of_masks_is_refused(shape):
    with pytest.raises(ShapeError) as caught:
        masks.dilate(torch.zeros(shape), 1)
    assert str(shape) in caught.value.got


@given(mask=soft_masks(), height=sides, width=sides)
def test_resize_agrees_with_the_oracle(mask, height, width):
    resized = masks.resize(mask, (height, width))
    assert resized.shape == (len(mask), 1, height, width)
    for made, original in zip(resized[:, 0], mask[:, 0].double().numpy(), strict=True):
        np.testing.assert_allclose(made, oracles.shares(original, (height, width)), rtol=1e-6, atol=1e-7)


@given(seed=seeds, height=st.integers(1, 4), width=st.integers(1, 4), times=st.integers(1, 3))
def test_resize_to_a_whole_divisor_keeps_the_share_that_is_relevant(seed, height, width, times):
    mask = torch.rand(2, 1, times * height, times * width, generator=generator(seed))
    resized = masks.resize(mask, (height, width))
    torch.testing.assert_close(resized.mean((1, 2, 3)), mask.mean((1, 2, 3)))
    torch.testing.assert_close(masks.resize(resized, mask.shape[-2:]).mean(), mask.mean())


@given(mask=soft_masks(), height=sides, width=sides)
def test_a_binary_resize_is_1_where_at_least_half_of_the_cell_is_relevant(mask, height, width):
    binary = masks.resize(mask, (height, width), binary=True)
    assert binary.dtype == torch.float32
    assert torch.equal(binary, (masks.resize(mask, (height, width)) >= 0.5).float())


def test_a_cell_that_is_half_relevant_counts_in_a_binary_resize():
    mask = torch.tensor([[[[1, 0, 0, 0], [1, 0, 0, 1]]]])
    assert masks.resize(mask, (1, 2)).tolist() == [[[[0.5, 0.25]]]]
    assert masks.resize(mask, (1, 2), binary=True).tolist() == [[[[1.0, 0.0]]]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=str)
def test_resize_reads_masks_of_every_type(dtype):
    resized = masks.resize(torch.tensor([[[[1, 1, 1, 0]]]]).to(dtype), (1, 2))
    assert resized.tolist() == [[[[1.0, 0.5]]]]
    assert resized.dtype == (dtype if dtype.is_floating_point else torch.float32)


@pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3), (2, 3, 3, 3)], ids=str)
def test_resize_of_anything_but_one_channel_is_refused(shape):
    with pytest.raises(ShapeError) as caught:
        masks.resize(torch.zeros(shape), (1, 1))
    assert str(shape) in caught.value.got
    assert "mask[:, None]" in caught.value.fix
