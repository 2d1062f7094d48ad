"""The site's correlation in each split, where it shows, and where the bullae lie."""

import numpy as np
import pytest
from scipy import ndimage

from attribguard.data.phantoms import SitesPhantom, sites
from tests.data.phantoms.drawn import allowed_error, changed, column, grays

N = 400


def disc(size, radius):
    """Pixels whose centre lies within the radius, as a share of the side, of the image's centre; one by one."""
    middle = (size - 1) / 2
    return np.array(
        [[(y - middle) ** 2 + (x - middle) ** 2 <= (radius * size) ** 2 for x in range(size)] for y in range(size)]
    )


@pytest.mark.parametrize("strength", [0.9, 0.5])
@pytest.mark.parametrize(("split", "reverse"), [("train", False), ("seen", False), ("valid", True), ("test", True)])
def test_the_correlation_of_site_and_label_is_reversed_in_validation_and_test(split, reverse, strength):
    data = list(SitesPhantom(split, N, size=32, strength=strength))
    targets, numbers = column(data, "target"), column(data, "shortcut")
    expected = 1 - strength if reverse else strength
    assert targets.mean() == 0.5
    assert abs(numbers.mean() - 0.5) < allowed_error(0.5, N)
    for target in (0, 1):
        share = (numbers == target)[targets == target].mean()
        assert abs(share - expected) < allowed_error(expected, N / 2)


@pytest.mark.parametrize("size", [32, 64, 100])
def test_the_mask_is_a_circle_and_every_slice_is_annotated(size):
    for item in SitesPhantom("train", 8, size=size):
        np.testing.assert_array_equal(item["mask"][0].numpy() == 1, disc(size, 0.44))
        assert item["annotated"]


def test_the_site_can_be_told_from_the_border_outside_the_mask():
    """By hand: the outermost ring is black at site 0, and the marker is left there, right at site 1."""
    for item in SitesPhantom("train", 200):
        picture = grays(item)
        ring = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (np.median(ring) > 60) == item["shortcut"]
        left, right = picture[4:7, 4:7].min(), picture[4:7, -7:-4].min()
        assert (right > left) == item["shortcut"] and max(left, right) > 200


def test_frame_and_marker_lie_outside_the_mask(monkeypatch):
    data = SitesPhantom("train", 40, size=100)
    before = list(data)
    monkeypatch.setattr(sites, "_draw_border", lambda *_: None)
    for i, item in enumerate(before):
        new = changed(before, data, i)
        assert new.any() and not new[item["mask"][0].numpy() == 1].any()


def test_sites_differ_in_brightness_and_noise_inside_the_mask_too():
    measured = {0: [], 1: []}
    for item in SitesPhantom("train", 200):
        below = grays(item)[48:56, 20:44] / 255  # below the lungs, where there is body alone
        measured[item["shortcut"].item()].append((below.mean(), np.diff(below, axis=1).std()))
    dark, bright = (np.mean(measured[number], axis=0) for number in (0, 1))
    assert bright[0] - dark[0] == pytest.approx(0.04, abs=0.02)
    assert bright[1] / dark[1] == pytest.approx(4 / 3, abs=0.15)


def test_bullae_are_dark_lie_in_the_lungs_and_are_in_class_1_alone(monkeypatch):
    """Measured before clipping and rounding, in which a faint hole's outline would fray."""
    data = SitesPhantom("train", 80, size=96)
    monkeypatch.setattr(sites, "to_image", lambda picture: picture)
    before = list(data)
    monkeypatch.setattr(sites, "_BULLA", sites._BULLA + 0.05)
    counts = []
    for item, after in zip(before, data, strict=True):
        darker = item["image"] - after["image"]
        assert (darker >= 0).all() and darker.any() == item["target"]
        assert not darker[item["mask"][0].numpy() == 0].any()
        if item["target"]:
            holes = darker >= 0.49 * darker.max()
            counts.append(ndimage.label(holes)[1])
            columns = np.nonzero(holes)[1] / 96
            assert not ((columns > 0.45) & (columns < 0.55)).any()  # between the lungs
    assert min(counts) >= 1 and max(counts) == 3 and np.mean(counts) > 1.8
