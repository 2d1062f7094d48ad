"""How often each lesion appears, and that its box is the smallest that holds it."""

import numpy as np
import pytest
import torch

from attribguard.data.phantoms import LESIONS, LesionPhantom, lesions
from tests.data.phantoms.drawn import allowed_error, changed, grays, same

N = 1200


@pytest.fixture(scope="module")
def drawn():
    return list(LesionPhantom("train", N, size=32))


def test_each_kind_appears_in_its_share_of_the_slices_and_half_of_them_are_healthy(drawn):
    targets = torch.stack([item["target"] for item in drawn]).numpy()
    for kind, (share, wanted) in enumerate(zip(targets.mean(0), LESIONS.values(), strict=True)):
        assert abs(share - wanted) < allowed_error(wanted, N), kind
    healthy = np.prod([1 - share for share in LESIONS.values()])
    assert 0.45 < healthy < 0.55
    assert abs((targets.sum(1) == 0).mean() - healthy) < allowed_error(healthy, N)


def test_kinds_are_independent_of_each_other(drawn):
    targets = torch.stack([item["target"] for item in drawn]).numpy()
    correlations = np.corrcoef(targets.T)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(N)


def test_boxes_are_one_for_each_lesion_in_the_targets_order_and_padded_at_the_end(drawn):
    for item in drawn:
        kinds = item["target"].nonzero()[:, 0].tolist()
        assert item["box_classes"].tolist() == kinds + [-1] * (6 - len(kinds))
        boxes = item["boxes"]
        assert boxes.dtype == torch.float32 and item["box_classes"].dtype == torch.int64
        assert (boxes[len(kinds) :] == 0).all()
        x0, y0, x1, y1 = boxes[: len(kinds)].T
        assert ((x0 >= 0) & (x0 < x1) & (x1 <= 32) & (y0 >= 0) & (y0 < y1) & (y1 <= 32)).all()


def test_the_mask_is_the_union_of_the_boxes_and_healthy_slices_are_not_annotated(drawn):
    for item in drawn[:200]:
        filled = np.zeros((32, 32))
        for box in item["boxes"]:
            x0, y0, x1, y1 = box.int().tolist()
            filled[y0:y1, x0:x1] = 1
        assert item["annotated"] == bool(item["target"].any())
        np.testing.assert_array_equal(item["mask"][0].numpy(), filled if item["annotated"] else np.ones((32, 32)))


@pytest.mark.parametrize("kind", range(6), ids=list(LESIONS))
def test_a_lesion_changes_the_image_in_its_box_and_little_beyond(monkeypatch, kind):
    """The same slices with one kind of lesion in all and with none at all; lesions have borders softer than a box."""
    data = LesionPhantom("train", 24, size=96)
    monkeypatch.setattr(lesions, "LESIONS", dict.fromkeys(LESIONS, 0.0))
    healthy = list(data)
    monkeypatch.setattr(lesions, "LESIONS", {name: float(i == kind) for i, name in enumerate(LESIONS)})
    inside, outside = [], []
    for i, item in enumerate(data):
        assert not healthy[i]["annotated"] and item["box_classes"].tolist() == [kind] + [-1] * 5
        new = changed(healthy, data, i, least=12)
        x0, y0, x1, y1 = item["boxes"][0].int().tolist()
        within = np.zeros_like(new)
        within[y0:y1, x0:x1] = True
        inside.append(new[within].mean())
        outside.append(new[~within].sum() / new.sum())
    assert np.median(inside) > 0.25
    assert np.median(outside) < 0.2 and not np.isnan(outside).any()


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 5])
def test_a_box_is_the_smallest_that_holds_the_lesion(monkeypatch, kind):
    """Painted alone, with a gray for each share; the gray of one half is rounded, and so counts or does not."""
    data = LesionPhantom("train", 24, size=96)
    monkeypatch.setattr(lesions, "_NOISE", 0.0)
    monkeypatch.setattr(lesions, "paint", lambda picture, gray, share: np.copyto(picture, share))
    monkeypatch.setattr(lesions, "LESIONS", {name: float(i == kind) for i, name in enumerate(LESIONS)})
    for item in data:
        inner, outer = (np.nonzero(grays(item) >= least) for least in (129, 127))
        x0, y0, x1, y1 = item["boxes"][0].int().tolist()
        for first, last, line in ((y0, y1 - 1, 0), (x0, x1 - 1, 1)):
            assert outer[line].min() <= first <= inner[line].min()
            assert inner[line].max() <= last <= outer[line].max()


def test_the_box_of_a_large_heart_holds_the_pixels_that_are_wider_than_an_ordinary_heart(monkeypatch):
    data = LesionPhantom("train", 24, size=96)
    monkeypatch.setattr(lesions, "LESIONS", dict.fromkeys(LESIONS, 0.0))
    healthy = list(data)
    monkeypatch.setattr(lesions, "LESIONS", {name: float(name == "large heart") for name in LESIONS})
    for i, item in enumerate(data):
        x0, _, x1, _ = item["boxes"][0].tolist()
        columns = np.nonzero(changed(healthy, data, i, least=40))[1]
        assert x0 - 4 <= columns.min() < x0 + 12 and x1 - 12 < columns.max() <= x1 + 4


@pytest.mark.parametrize("split", LesionPhantom.SPLITS)
def test_the_binary_form_is_the_same_slices_healthy_or_not(split):
    for several, two in zip(LesionPhantom(split, 40), LesionPhantom(split, 40, binary=True), strict=True):
        assert two["target"].dtype == torch.int64 and two["target"].shape == ()
        assert two["target"] == several["target"].any() == two["annotated"]
        assert same({**several, "target": 0}, {**two, "target": 0})
