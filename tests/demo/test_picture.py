import io

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from attribguard.data import Crosses
from attribguard.demo.picture import Look, _outline, draw
from attribguard.demo.scores import Scores
from attribguard.demo.splits import Split


def arguments(predicted=(0, 1), test_auc=0.25, right=3, maps=None):
    crosses = Crosses("test", 2)
    maps = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)) if maps is None else maps
    looks = [
        Look("first", Scores(1.0, 0.5, test_auc, 0.1), (right, 9), torch.tensor(predicted), maps),
        Look("second", Scores(1.0, 0.5, 0.75, 0.9), (8, 9), torch.tensor([0, 1]), maps),
    ]
    return Split(crosses.images, crosses.targets, crosses.masks), 2, looks


def pixels(png):
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"), dtype=int)


@pytest.fixture(scope="module")
def picture():
    return pixels(draw(*arguments()))


def count(picture, color):
    return int((np.abs(picture - np.array(color)).max(-1) <= 2).sum())


def test_the_picture_is_1200_pixels_wide_with_a_row_for_each_image(picture):
    height, width, _ = picture.shape
    assert width == 1200
    one_row = Split(*(part[:1] for part in arguments()[0]))
    assert height - pixels(draw(one_row, *arguments()[1:])).shape[0] == 322


def test_nothing_is_cut_off_at_the_margins(picture):
    border = [picture[:8], picture[-8:], picture[:, :8], picture[:, -8:]]
    assert all((strip == 255).all() for strip in border)


def test_the_region_and_the_distractor_are_framed(picture):
    assert count(picture, (0x56, 0xB4, 0xE9)) > 1000
    assert count(picture, (0xE6, 0x9F, 0x00)) > 1000
    everything, pixels_, looks = arguments()
    bare = Split(everything.masks, everything.targets, everything.masks)  # images without a distractor
    legend_only = count(pixels(draw(bare, pixels_, looks)), (0xE6, 0x9F, 0x00))
    assert legend_only < 200


@pytest.mark.parametrize(
    "change", [{"predicted": (0, 0)}, {"test_auc": 0.5}, {"right": 4}, {"maps": torch.eye(28).expand(2, 1, 28, 28)}]
)
def test_answers_figures_and_maps_show(picture, change):
    changed = pixels(draw(*arguments(**change)))
    assert changed.shape == picture.shape
    assert (changed != picture).any()


def test_a_wrong_answer_is_set_off_by_colour(picture):
    targets = arguments()[0].targets
    red = (0xD5, 0x5E, 0x00)
    right = count(pixels(draw(*arguments(predicted=targets.tolist()))), red)
    wrong = count(pixels(draw(*arguments(predicted=(1 - targets).tolist()))), red)
    assert wrong > right + 500


def test_a_map_of_nothing_can_be_drawn():
    assert np.isfinite(pixels(draw(*arguments(maps=torch.zeros(2, 1, 28, 28))))).all()


def test_the_users_own_style_neither_shows_nor_changes(picture):
    mine = {"savefig.dpi": 30.0, "savefig.bbox": "tight", "axes.facecolor": "red", "text.color": "green"}
    with matplotlib.rc_context(mine):
        assert (pixels(draw(*arguments())) == picture).all()
        assert {name: matplotlib.rcParams[name] for name in mine} == mine


def test_the_outline_follows_the_edges_of_pixels():
    region = np.zeros((3, 3), dtype=bool)
    region[0, 1:] = True  # at the picture's edge, where it is outlined too
    edges = {frozenset(edge) for edge in _outline(region)}
    top = [((0.5, -0.5), (1.5, -0.5)), ((1.5, -0.5), (2.5, -0.5))]
    bottom = [((0.5, 0.5), (1.5, 0.5)), ((1.5, 0.5), (2.5, 0.5))]
    sides = [((0.5, -0.5), (0.5, 0.5)), ((2.5, -0.5), (2.5, 0.5))]
    assert edges == {frozenset(edge) for edge in top + bottom + sides}
