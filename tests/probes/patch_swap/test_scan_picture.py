import io

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from attribguard.probes.patch_swap import PatchGrid
from attribguard.probes.patch_swap.swaps import to_picture
from tests.probes.patch_swap.test_scan_result import make, noisy


def pixels(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    with Image.open(file) as image:
        image.load()
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("colour", [False, True])
def test_plot_is_a_picture_with_something_on_it(colour):
    picture = np.zeros((7, 10, 3) if colour else (7, 10), np.uint8)
    drawn = pixels(noisy(grid=PatchGrid((7, 10), 3, 3), picture=picture).plot())
    assert drawn.shape[1] > drawn.shape[0] > 100
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 50


def test_the_map_shows_the_drop_over_the_source_and_marks_the_lowest_position():
    scan = noisy(grid=PatchGrid((7, 10), 3, 3), picture=np.full((7, 10), 90, np.uint8))
    left, _, _ = scan.plot().axes  # and a colour bar
    source, heat = left.get_images()
    np.testing.assert_array_equal(source.get_array(), scan.picture)
    np.testing.assert_array_equal(np.ma.filled(heat.get_array(), np.nan), scan.heatmap())
    (box,) = left.patches
    assert (box.get_x(), box.get_y(), box.get_width()) == (2.5, -0.5, 3)  # position 1


def test_the_curves_are_each_sources_certainty_by_position_as_in_figure_3():
    scan = noisy()
    _, right, _ = scan.plot().axes
    lines = [line.get_ydata() for line in right.get_lines()]
    for curve in (*scan.curves, scan.curves.mean(0)):
        assert any(len(line) == 6 and np.allclose(line, curve) for line in lines)
    for words in ("T = 100", "N = 12", "S = 10", "seed 5"):
        assert words in right.get_title()


def test_axes_are_taken_where_they_are_given():
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert noisy().plot(tuple(axes)) is figure
    assert axes[0].get_images() and axes[1].get_lines()


def test_a_scan_in_which_nothing_drops_can_be_drawn():
    assert pixels(make(np.full((2, 2, 4), 0.9)).plot()).size
    assert pixels(make(np.full((2, 2, 4), 0.95)).plot()).size


def test_drawing_needs_no_display_and_leaves_the_global_figures_alone():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    noisy().plot()
    assert pyplot.get_fignums() == before and matplotlib.rcParams["figure.dpi"]


def test_a_picture_spans_0_to_255_whatever_the_images_range():
    image = torch.tensor([[[-2.0, 0.0], [2.0, 2.0]]])
    np.testing.assert_array_equal(to_picture(image), [[0, 128], [255, 255]])
    assert to_picture(torch.rand(3, 4, 5)).shape == (4, 5, 3)
    assert to_picture(torch.rand(2, 4, 5)).shape == (4, 5)
    assert not to_picture(torch.full((1, 4, 5), 3.0)).any()
