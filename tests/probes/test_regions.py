"""Regions: masks and boxes in every form, as one mask an image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.probes.regions import as_region

LIKE = torch.zeros(2, 5, 6)
NAN = float("nan")


def whole_boxes(width, height):
    def span(length):
        return st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True).map(sorted)

    return st.tuples(span(width), span(height)).map(lambda ends: [ends[0][0], ends[1][0], ends[0][1], ends[1][1]])


@given(st.lists(st.lists(whole_boxes(6, 5), max_size=3), min_size=2, max_size=2))
def test_a_list_of_boxes_an_image_is_their_union(boxes):
    ours = as_region(boxes, LIKE)
    assert ours.dtype == torch.bool
    for i, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(5), torch.arange(6)).tolist():
        expected = any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in boxes[i])
        assert ours[i, y, x].item() == expected


def test_every_form_of_the_same_boxes_gives_the_same_masks():
    nested = [[[0, 0, 2, 3]], [[1, 1, 6, 5]]]
    expected = as_region(nested, LIKE)
    for form in (
        torch.tensor(nested),
        torch.tensor(nested)[:, 0],
        torch.tensor(nested)[:, 0].half(),
        [torch.tensor(boxes) for boxes in nested],
        tuple(tuple(boxes) for boxes in nested),
        expected,
        expected[:, None],
        expected.float() * 0.7,
        expected.long(),
    ):
        assert torch.equal(as_region(form, LIKE), expected)


def test_an_image_may_have_no_region_in_every_form():
    for form in (
        [[], [[0, 0, 1, 1]]],
        [torch.zeros(0, 4), torch.tensor([[0, 0, 1, 1]])],
        [torch.zeros(0), [[0, 0, 1, 1]]],
    ):
        assert as_region(form, LIKE).flatten(1).any(1).tolist() == [False, True]
    assert not as_region(torch.zeros(2, 5, 6), LIKE).any()
    assert not as_region(torch.zeros(2, 0, 4), LIKE).any()
    assert as_region([], LIKE[:0]).shape == (0, 5, 6)


def test_a_tensor_of_the_maps_shape_is_a_mask_also_where_maps_are_four_wide():
    mask = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    assert as_region(mask, torch.zeros(1, 1, 4)).tolist() == [[[False, False, True, True]]]


@pytest.mark.parametrize(
    ("region", "kind", "words"),
    [
        (torch.zeros(2, 5, 5), ShapeError, "boxes"),
        (torch.zeros(3, 5, 6), ShapeError, "boxes"),
        (torch.zeros(2, 3, 5, 6), ShapeError, "boxes"),
        (torch.zeros(2), ShapeError, "boxes"),
        ([[[0, 0, 1, 1]]], ShapeError, "boxes of 1 images for 2 maps"),
        (torch.tensor([[0, 0, 1, 1]]), ShapeError, "boxes of 1 images for 2 maps"),
        ([[0, 0, 1, 1], [0, 0, 1, 1]], ShapeError, "in a list even where there is one"),
        ([[[0, 0, 1]], []], ShapeError, "x0, y0, x1, y1"),
        ([[[0, 0, 1, 1], [0, 0, 1]], []], ShapeError, "no table of numbers"),
        ([["box"], []], ShapeError, "no table of numbers"),
        ([None, []], ShapeError, "no table of numbers"),
        ([[[3, 0, 1, 1]], []], RangeError, "x0 < x1"),
        ([[[0, 3, 1, 1]], []], RangeError, "y0 < y1"),
        ([[[1, 1, 1, 3]], []], RangeError, "x0 < x1"),
        ([[[0, 0, 7, 1]], []], RangeError, "x1 <= 6"),
        ([[[0, 0, 1, 6]], []], RangeError, "y1 <= 5"),
        ([[[-1, 0, 1, 1]], []], RangeError, "0 <= x0"),
        ([[[0, 0, NAN, 1]], []], RangeError, "nan"),
        ([[], [[1.6, 1.6, 2.4, 2.4]]], RangeError, "centre of a pixel"),
        (torch.full((2, 5, 6), NAN), RangeError, "no NaN"),
        (torch.full((2, 5, 6), 255), RangeError, "by 255"),
        (torch.zeros(2, 5, 6) + 0j, RangeError, "outside"),
        ("box", TypeMismatchError, "str"),
        (None, TypeMismatchError, "NoneType"),
        (3, TypeMismatchError, "int"),
    ],
)
def test_bad_regions_are_one_clear_error(region, kind, words):
    with pytest.raises(kind, match=words):
        as_region(region, LIKE)
