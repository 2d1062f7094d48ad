import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import RangeError, TypeMismatchError
from attribguard.probes.patch_swap.patch_grid import PatchGrid


@st.composite
def grids(draw):
    image = draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    patch = draw(st.integers(1, min(image)))
    return PatchGrid(image, patch, draw(st.integers(1, patch)))


def corners_by_hand(grid):
    height, width = grid.image
    tops = [top for top in range(height) if top % grid.stride == 0 and top + grid.patch <= height]
    lefts = [left for left in range(width) if left % grid.stride == 0 and left + grid.patch <= width]
    return [(top, left) for top in tops for left in lefts]


@given(grids())
def test_patches_are_numbered_row_by_row_and_lie_within_the_image(grid):
    corners = corners_by_hand(grid)
    assert len(grid) == len(corners) == grid.shape[0] * grid.shape[1]
    assert [grid.corner(position) for position in range(len(grid))] == corners


@given(grids())
def test_inside_marks_the_pixels_of_each_patch(grid):
    inside = grid.inside(torch.arange(len(grid)))
    assert inside.shape == (len(grid), 1, *grid.image)
    for marked, (top, left) in zip(inside[:, 0].numpy(), corners_by_hand(grid), strict=True):
        expected = np.zeros(grid.image, dtype=bool)
        expected[top : top + grid.patch, left : left + grid.patch] = True
        np.testing.assert_array_equal(marked, expected)


@given(grids())
def test_left_out_counts_the_rows_and_columns_at_the_border_that_no_patch_holds(grid):
    held = grid.inside(torch.arange(len(grid))).any(0)[0]
    rows, columns = held.any(1), held.any(0)
    assert grid.left_out == (int((~rows).sum()), int((~columns).sum()))
    bottom, right = grid.left_out
    # And nothing but the border is left out.
    assert held[: grid.image[0] - bottom, : grid.image[1] - right].all()


def test_the_papers_grid_has_49_patches_and_its_number_43_is_our_42():
    grid = PatchGrid((28, 28), 4, 4)
    assert len(grid) == 49 and grid.left_out == (0, 0)
    assert grid.corner(43 - 1) == (24, 0)


@pytest.mark.parametrize(
    ("patch", "stride", "kind", "words"),
    [
        (9, 9, RangeError, "patch_size=9 for images of 8 x 12"),
        (0, 1, RangeError, "patch_size=0"),
        (4, 0, RangeError, "stride=0"),
        (4, 5, RangeError, "stride=5 for patches of 4 pixels"),
        (2.0, 2, TypeMismatchError, "patch_size=2.0"),
        (True, 1, TypeMismatchError, "patch_size=True"),
        (4, "2", TypeMismatchError, "stride='2'"),
    ],
)
def test_a_patch_that_does_not_fit_is_one_clear_error(patch, stride, kind, words):
    with pytest.raises(kind, match=words):
        PatchGrid((8, 12), patch, stride)
