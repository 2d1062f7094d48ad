"""Where pancreas and stomach lie, and that nothing but the pancreas tells the classes apart for certain."""

import numpy as np
import pytest
import torch

from attribguard.data.phantoms import OrganPhantom, organs
from tests.data.phantoms.drawn import allowed_error, changed, column, grays

N = 400


@pytest.mark.parametrize("split", OrganPhantom.SPLITS)
def test_the_stomach_agrees_with_the_label_in_every_split(split):
    data = list(OrganPhantom(split, N, size=32))
    targets, stomachs = column(data, "target"), column(data, "shortcut")
    assert targets.mean() == 0.5
    for target in (0, 1):
        assert abs((stomachs == target)[targets == target].mean() - 0.95) < allowed_error(0.95, N / 2)


def test_the_mask_marks_the_pixels_that_the_pancreas_paints(monkeypatch):
    data = OrganPhantom("train", 60, size=96)
    before = list(data)
    monkeypatch.setattr(organs, "_PANCREAS", organs._PANCREAS + 0.2)
    for item, after in zip(before, data, strict=True):
        shares = (grays(after) - grays(item)) / (255 * 0.2)
        pancreas = item["segmentation"].numpy() == 1
        assert pancreas.any() == item["target"]
        assert (shares[pancreas] > 0.45).all() and (shares[~pancreas] < 0.55).all()


@pytest.mark.parametrize("split", OrganPhantom.SPLITS)
def test_slices_without_a_pancreas_are_not_annotated_and_segmented_as_empty(split):
    for item in OrganPhantom(split, 40):
        assert item["annotated"] == bool(item["target"])
        assert set(item["segmentation"].unique().tolist()) == ({0, 1} if item["target"] else {0})
        expected = item["segmentation"] if item["target"] else torch.ones(64, 64)
        assert torch.equal(item["mask"][0], expected.float())


def test_the_stomach_is_bright_and_leaves_every_pixel_of_the_pancreas_as_it_is():
    with_stomach, without = (OrganPhantom("train", 60, strength=1.0).shortcut(share) for share in (1.0, 0.0))
    for i, item in enumerate(with_stomach):
        new = changed(with_stomach, without, i)
        shining = item if item["shortcut"] else without[i]
        assert new.sum() > 50
        assert np.quantile(grays(shining)[new], 0.8) > 180
        assert not new[item["segmentation"].numpy() == 1].any()
        assert np.nonzero(new)[0].mean() < 32  # in the upper half


def test_even_a_stomach_everywhere_would_leave_the_pancreas_as_it_is(monkeypatch):
    monkeypatch.setattr(organs, "_stomach", lambda rng, size: np.ones((size, size)))
    with_stomach, without = (OrganPhantom("train", 12).shortcut(share) for share in (1.0, 0.0))
    for i, item in enumerate(with_stomach):
        new = changed(with_stomach, without, i)
        assert new.mean() > 0.8
        assert not new[item["segmentation"].numpy() == 1].any()


def test_the_stomach_has_the_same_shape_in_both_classes(monkeypatch):
    """A pancreas that is not drawn still keeps its place free, or the stomach's outline would give the class away."""
    shown = OrganPhantom("train", 40, size=96)
    pairs = [changed(shown.shortcut(1.0), shown.shortcut(0.0), i) for i in range(40)]
    monkeypatch.setattr(OrganPhantom, "_two_of_four", lambda *_: 0)
    for i, with_classes in enumerate(pairs):
        all_negative = changed(shown.shortcut(1.0), shown.shortcut(0.0), i)
        assert (with_classes ^ all_negative).sum() <= 0.02 * with_classes.sum()  # where the two grays happen to agree
