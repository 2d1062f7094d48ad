import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attribguard.data.augmentation import augment
from attribguard.errors import ShapeError, TypeMismatchError


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def draws(seed):
    """Whether to turn, quarters, axis of the flip, whether to rotate, degrees."""
    turn, quarter, flip, rotate, angle = torch.rand(5, generator=seeded(seed)).tolist()
    return turn < 0.5, int(4 * quarter), "up-down" if flip < 0.5 else "left-right", rotate < 0.5, 40 * angle - 20


def where_it_goes(x, y, height, width, seed):
    """A point's new place, step by step with the points' own arithmetic: quarter turns to the left, flip, rotation."""
    turn, quarters, axis, rotate, degrees = draws(seed)
    if turn:
        for _ in range(quarters):
            x, y, height, width = y, width - x, width, height
        x, y = (x, height - y) if axis == "up-down" else (width - x, y)
    if rotate:
        radians = math.radians(degrees)
        point = complex(x - width / 2, y - height / 2) * complex(math.cos(radians), math.sin(radians))
        x, y = point.real + width / 2, point.imag + height / 2
    return x, y


@pytest.mark.parametrize("seed", range(40))
def test_a_marked_pixel_goes_the_same_way_in_image_mask_and_box(seed):
    image = torch.zeros(2, 41, 41)
    image[:, 12:15, 23:26] = 1
    box = torch.tensor([[23.0, 12, 26, 15]])
    new, mask, boxes = augment(image, image[:1], box, generator=seeded(seed))
    x, y = where_it_goes(24.5, 13.5, 41, 41, seed)
    assert new[0, int(y), int(x)] > 0.99 and mask[0, int(y), int(x)] == 1
    places = torch.arange(41) + 0.5
    rows, columns = (new[0].sum(axis) @ places / new[0].sum() for axis in (1, 0))
    assert abs(rows - y) < 0.1 and abs(columns - x) < 0.1
    torch.testing.assert_close(
        (boxes[0, :2] + boxes[0, 2:]) / 2, torch.tensor([x, y], dtype=torch.float32), rtol=0, atol=1e-4
    )
    x0, y0, x1, y1 = boxes[0].tolist()
    relevant = mask[0].nonzero() + 0.5
    assert (relevant > torch.tensor([y0, x0])).all() and (relevant < torch.tensor([y1, x1])).all()
    assert torch.equal(new[0], new[1])


def test_without_a_rotation_every_pixel_is_moved_and_none_changed():
    image = torch.rand(3, 7, 7)
    for seed in range(60):
        turn, quarters, axis, rotate, _ = draws(seed)
        if rotate:
            continue
        new, mask = augment(image, image[1:2], generator=seeded(seed))
        expected = image.numpy()
        if turn:
            expected = np.flip(np.rot90(expected, quarters, (1, 2)), 1 if axis == "up-down" else 2)
        np.testing.assert_array_equal(new.numpy(), expected)
        assert torch.equal(mask, new[1:2])


@pytest.mark.parametrize("seed", range(12))
def test_a_rotation_interpolates_the_image_and_takes_the_nearest_pixel_of_the_mask(seed):
    rng = np.random.default_rng(seed)
    height, width = 9, 13
    image, mask = rng.random((1, height, width)), rng.integers(0, 2, (1, height, width)).astype(float)
    new, new_mask = augment(torch.tensor(image), torch.tensor(mask), fill=-1.0, generator=seeded(seed))
    turn, quarter, axis, rotate, degrees = draws(seed)
    if turn:
        image, mask = (
            np.flip(np.rot90(picture, 2 * (quarter // 2), (1, 2)), 1 if axis == "up-down" else 2)
            for picture in (image, mask)
        )
    if not rotate:
        np.testing.assert_allclose(new.numpy(), image)
        return
    back = complex(math.cos(math.radians(degrees)), -math.sin(math.radians(degrees)))
    padded = np.pad(image[0], 30, constant_values=-1)
    for row in range(height):
        for column in range(width):
            point = complex(column + 0.5 - width / 2, row + 0.5 - height / 2) * back
            x, y = point.real + width / 2 - 0.5, point.imag + height / 2 - 0.5
            left, top = math.floor(x), math.floor(y)
            across, down = x - left, y - top
            four = padded[top + 30 : top + 32, left + 30 : left + 32]
            value = np.array([1 - down, down]) @ four @ np.array([1 - across, across])
            assert abs(value - float(new[0, row, column])) < 1e-9
            if abs(across - 0.5) > 1e-6 and abs(down - 0.5) > 1e-6:
                at, of = round(y), round(x)
                nearest = mask[0, at, of] if 0 <= at < height and 0 <= of < width else 0
                assert nearest == new_mask[0, row, column]


def test_chances_and_angles_are_those_of_the_paper():
    image = torch.arange(25.0).view(1, 5, 5)
    counts, n = Counter(), 2000
    for seed in range(n):
        turn, quarters, axis, rotate, degrees = draws(seed)
        counts["turn"] += turn
        counts["rotate"] += rotate
        counts["same"] += torch.equal(augment(image, image, generator=seeded(seed))[0], image)
        counts[quarters] += 1
        counts[axis] += 1
        assert -20 <= degrees <= 20
    for key, share in {
        "turn": 0.5,
        "rotate": 0.5,
        "same": 0.25,
        "up-down": 0.5,
        0: 0.25,
        1: 0.25,
        2: 0.25,
        3: 0.25,
    }.items():
        assert abs(counts[key] / n - share) < 0.04, key


def test_images_that_are_not_square_keep_their_shape():
    for seed in range(30):
        new, mask = augment(torch.rand(1, 4, 6), torch.ones(1, 4, 6), generator=seeded(seed))
        assert new.shape == mask.shape == (1, 4, 6)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 30), st.integers(4, 30))
def test_boxes_stay_in_the_image_around_what_they_held(seed, height, width):
    rng = np.random.default_rng(seed)
    x, y = np.sort(rng.random((2, 5, 2)), axis=2) * [[[width]], [[height]]]
    boxes = torch.tensor(np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)).float()
    picture = torch.zeros(1, height, width)
    _, _, new = augment(picture, picture, boxes, generator=seeded(seed))
    assert (new >= 0).all() and (new[:, [0, 2]] <= width).all() and (new[:, [1, 3]] <= height).all()
    square = height == width
    for old, box in zip(boxes.tolist(), new.tolist(), strict=True):
        middle = (old[0] + old[2]) / 2, (old[1] + old[3]) / 2
        if square and box[2] > box[0]:
            px, py = where_it_goes(*middle, height, width, seed)
            px, py = min(max(px, 0), width), min(max(py, 0), height)
            assert box[0] - 1e-3 <= px <= box[2] + 1e-3 and box[1] - 1e-3 <= py <= box[3] + 1e-3


@pytest.mark.parametrize("seed", range(12))
def test_boxes_that_fill_up_a_batch_stay_four_zeros(seed):
    picture = torch.zeros(1, 8, 8)
    _, _, boxes = augment(picture, picture, torch.tensor([[0.0, 0, 0, 0], [1, 1, 3, 4]]), generator=seeded(seed))
    assert boxes[0].tolist() == [0, 0, 0, 0] and boxes[1, 2] > boxes[1, 0]
    assert augment(picture, picture, torch.zeros(0, 4), generator=seeded(seed))[2].shape == (0, 4)


def test_a_box_that_leaves_the_image_becomes_four_zeros():
    picture, box = torch.zeros(1, 100, 100), torch.tensor([[0.0, 0, 3, 3]])
    left = 0
    for seed in range(40):
        _, _, rotate, degrees = draws(seed)[1:]
        new = augment(picture, picture, box, generator=seeded(seed))[2]
        if rotate and abs(degrees) > 10:
            assert new[0].tolist() == [0, 0, 0, 0]
            left += 1
    assert left > 5


def test_corners_are_filled_with_the_given_value_and_irrelevant_in_the_mask():
    seed = next(seed for seed in range(100) if draws(seed)[3] and abs(draws(seed)[4]) > 15)
    new, mask = augment(torch.full((1, 20, 20), 40.0), torch.ones(1, 20, 20), fill=-1000, generator=seeded(seed))
    assert new[0, 0, 0] == -1000 and mask[0, 0, 0] == 0 and abs(new[0, 10, 10] - 40) < 1e-3


def test_the_global_generator_is_used_where_none_is_given():
    image = torch.rand(1, 5, 5)
    torch.manual_seed(2)
    first = augment(image, image)[0]
    assert torch.equal(first, augment(image, image, generator=seeded(2))[0])


@pytest.mark.parametrize(
    ("image", "mask", "boxes"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), None),
        (torch.zeros(4, 4), torch.zeros(1, 4, 4), None),
        (torch.zeros(1, 4, 4), torch.zeros(4, 4), None),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 5), None),
        (torch.zeros(3, 4, 4), torch.zeros(3, 4, 4), None),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), torch.zeros(4)),
        (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), torch.zeros(2, 5)),
    ],
)
def test_another_shape_is_one_clear_error(image, mask, boxes):
    with pytest.raises(ShapeError):
        augment(image, mask, boxes)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_whole_numbers_are_one_clear_error(place):
    tensors = [torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), torch.zeros(2, 4)]
    tensors[place] = tensors[place].long()
    with pytest.raises(TypeMismatchError, match="int64"):
        augment(*tensors)
