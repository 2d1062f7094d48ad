"""The drawing tools against sums written out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribguard.data.phantoms import canvas


def centres(size):
    """Every pixel's centre, (y, x), one after the other."""
    return [((2 * row + 1) / size - 1, (2 * column + 1) / size - 1) for row in range(size) for column in range(size)]


@given(size=st.integers(8, 40), y=st.floats(-1, 1), x=st.floats(-1, 1), radius=st.floats(0.1, 2))
def test_depth_in_a_circle_is_the_distance_to_its_outline(size, y, x, radius):
    expected = [radius - math.hypot(down - y, right - x) for down, right in centres(size)]
    np.testing.assert_allclose(canvas.depth_in_ellipse(size, (y, x), (radius, radius)).ravel(), expected, atol=1e-12)


@given(angle=st.floats(-math.pi, math.pi), tall=st.floats(0.1, 1), wide=st.floats(0.1, 1))
def test_a_turned_ellipse_holds_the_points_whose_distances_to_its_foci_sum_to_less_than_its_axis(angle, tall, wide):
    depth = canvas.depth_in_ellipse(24, (0.1, -0.2), (tall, wide), angle)
    focus = math.sqrt(abs(tall**2 - wide**2))
    # The axis that is its own y points along (cos, -sin) in (y, x), its own x along (sin, cos).
    down, right = (math.cos(angle), -math.sin(angle)) if tall > wide else (math.sin(angle), math.cos(angle))
    for (y, x), found in zip(centres(24), depth.ravel(), strict=True):
        ways = sum(math.hypot(y - 0.1 - s * focus * down, x + 0.2 - s * focus * right) for s in (-1, 1))
        if abs(ways - 2 * max(tall, wide)) > 1e-9:
            assert (found > 0) == (ways < 2 * max(tall, wide))


def test_jags_move_the_outline_outward():
    plain, grown = (canvas.depth_in_ellipse(50, (0, 0), (0.4, 0.4), jags=jags) for jags in (0.0, 0.25))
    np.testing.assert_allclose(grown, canvas.depth_in_ellipse(50, (0, 0), (0.5, 0.5)), atol=1e-12)
    np.testing.assert_allclose(grown - plain, 0.25 * 0.4, atol=1e-12)


@pytest.mark.parametrize("soft", [0.0, 0.1])
def test_a_cover_holds_the_shapes_area_and_one_half_on_the_outline(soft):
    share = canvas.cover(canvas.depth_in_ellipse(200, (0, 0), (0.6, 0.6)), soft)
    assert share.min() == 0 and share.max() == 1
    assert share.sum() * (2 / 200) ** 2 == pytest.approx(math.pi * 0.6**2, rel=5e-3)
    edge = (share > 0) & (share < 1)
    width = edge.sum() * (2 / 200) ** 2 / (2 * math.pi * 0.6)
    assert width == pytest.approx(max(soft, 2 / 200), rel=0.1)
    assert canvas.cover(np.zeros((4, 4)), soft).tolist() == [[0.5] * 4] * 4


def test_paint_mixes_grays_by_their_share():
    picture = np.array([[0.2, 0.2], [0.2, 0.2]])
    canvas.paint(picture, np.array([[1.0, 0.6], [1.0, 1.0]]), np.array([[0.0, 0.5], [1.0, 0.25]]))
    np.testing.assert_allclose(picture, [[0.2, 0.4], [1.0, 0.4]])


def test_texture_runs_straight_between_its_random_numbers():
    class Counted:
        def uniform(self, low, high, shape):
            assert (low, high) == (-1, 1)
            return np.arange(np.prod(shape), dtype=float).reshape(shape)

    smooth = canvas.texture(Counted(), 9, 3)
    expected = [[3 * row / 4 + column / 4 for column in range(9)] for row in range(9)]
    np.testing.assert_allclose(smooth, expected, atol=1e-12)


def test_noise_has_mean_0_and_deviation_1_and_no_neighbours():
    noise = canvas.bell_noise(np.random.Generator(np.random.PCG64(0)), 300)
    assert abs(noise.mean()) < 4 / 300 and abs(noise.std() - 1) < 4 / 300
    assert abs((noise[1:] * noise[:-1]).mean()) < 4 / 300 and abs((noise[:, 1:] * noise[:, :-1]).mean()) < 4 / 300
    assert np.abs(noise).max() <= 2 * math.sqrt(3)


def test_an_image_is_clipped_and_rounded_to_eight_bits():
    image = canvas.to_image(np.array([[-0.5, 0.0, 1.6 / 255], [1.4 / 255, 1.0, 7.0]]))
    assert image.shape == (1, 2, 3)
    assert (image * 255).flatten().tolist() == [0, 0, 2, 1, 255, 255]


def test_the_grid_is_shared_and_so_cannot_be_written_to():
    y, x = canvas.grid(4)
    assert x.ravel().tolist() == y.ravel().tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert y.shape == (4, 1) and x.shape == (1, 4)
    with pytest.raises(ValueError, match="read-only"):
        y += 1
