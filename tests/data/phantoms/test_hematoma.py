"""Where hematomas, islands and clips lie, which hospital they come from, and what is annotated."""

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from attribguard.data.phantoms import HEMATOMA_SIGNS, HematomaPhantom, hematoma
from tests.data.phantoms.drawn import allowed_error, changed, column, grays

SPLITS = HematomaPhantom.SPLITS
N = 400


@pytest.fixture(scope="module")
def drawn():
    """The slices of each split."""
    return {split: list(HematomaPhantom(split, N)) for split in SPLITS}


def repainted(monkeypatch, name, change, n=80):
    """The same slices, as they are and with one of the module's grays changed; both drawn at once."""
    data = HematomaPhantom("train", n, size=96)
    before = list(data)
    monkeypatch.setattr(hematoma, name, getattr(hematoma, name) + change)
    return before, list(data)


@pytest.mark.parametrize("split", SPLITS)
def test_the_positive_class_has_hypodensity_and_negatives_one_of_the_other_four_as_often(drawn, split):
    targets, signs = column(drawn[split], "target"), column(drawn[split], "sign")
    assert targets.mean() == 0.5
    np.testing.assert_array_equal(signs == HEMATOMA_SIGNS.index("hypodensity"), targets == 1)
    counts = np.bincount(signs, minlength=5)[1:]
    assert len(HEMATOMA_SIGNS) == 5 and stats.chisquare(counts).pvalue > 1e-4


def test_the_mask_marks_the_pixels_that_blood_paints(monkeypatch):
    before, after = repainted(monkeypatch, "_BLOOD", 0.16)
    for old, new in zip(before, after, strict=True):
        shares = (grays(new) - grays(old)) / (255 * 0.16 * hematoma._HOSPITALS[old["hospital"] - 1].contrast)
        mask = old["segmentation"].numpy() == 1
        assert (shares[mask] > 0.45).all() and (shares[~mask] < 0.55).all()
        assert mask.any() == (HEMATOMA_SIGNS[old["sign"]] != "no hematoma")


def dark_part(before, after):
    """Where a change of its gray is at least half as large as it is anywhere, and where there is any; (H, W) bool."""
    change = np.abs(grays(before) - grays(after))
    return change >= max(change.max() / 2, 1), change >= 1


def test_the_hypodense_region_is_an_island_and_the_other_signs_dark_parts_are_none(monkeypatch):
    before, after = repainted(monkeypatch, "_SPARSE", 0.3)
    seen = []
    for old, new in zip(before, after, strict=True):
        dark, touched = dark_part(old, new)
        mask = old["segmentation"].numpy() == 1
        assert not touched[~ndimage.binary_dilation(mask, iterations=4)].any()
        # An island has blood all around: it stays a pixel away from the margin, also at a corner.
        island = dark.any() and not dark[~ndimage.binary_erosion(mask, np.ones((3, 3)))].any()
        assert island == old["target"]
        seen.append(HEMATOMA_SIGNS[old["sign"]])
    assert set(seen) == set(HEMATOMA_SIGNS)


def test_the_dark_part_of_a_fluid_level_lies_above_the_bright_one(monkeypatch):
    before, after = repainted(monkeypatch, "_SPARSE", 0.3)
    levels = [pair for pair in zip(before, after, strict=True) if HEMATOMA_SIGNS[pair[0]["sign"]] == "fluid level"]
    assert levels
    for old, new in levels:
        # At the soft margin there is too little blood for its change to be seen.
        mask = ndimage.binary_erosion(old["segmentation"].numpy() == 1)
        dark = dark_part(old, new)[0] & mask
        assert np.nonzero(dark)[0].max() <= np.nonzero(mask & ~dark)[0].min() + 2


def test_an_irregular_margin_is_longer_for_its_area_than_any_other(drawn):
    roundness = {sign: [] for sign in HEMATOMA_SIGNS}
    for item in drawn["train"]:
        mask = item["segmentation"]
        if mask.any():
            edges = sum(mask.diff(dim=dim).abs().sum().item() for dim in (0, 1))
            roundness[HEMATOMA_SIGNS[item["sign"]]].append(edges**2 / mask.sum().item())
    for sign in ("hypodensity", "blend", "fluid level"):
        assert np.median(roundness["irregular margin"]) > 1.2 * np.median(roundness[sign])
        assert np.quantile(roundness["irregular margin"], 0.1) > np.quantile(roundness[sign], 0.9)


@pytest.mark.parametrize("split", SPLITS)
def test_the_clip_lies_on_the_skull_never_on_the_hematoma_and_is_all_that_the_shortcut_changes(split):
    data = HematomaPhantom(split, 80, strength=1.0)
    if split == "unseen":  # where the strength of hospitals 1 to 4 says nothing
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(data, data.shortcut(0.0), strict=True))
        return
    opposed = data.shortcut(0.0)
    for i, item in enumerate(data):
        new = changed(data, opposed, i)
        assert new.any() and ndimage.label(new, np.ones((3, 3)))[1] == 1
        assert not new[item["segmentation"].numpy() == 1].any()
        y, x = (2 * np.mean(place) / 63 - 1 for place in np.nonzero(new))
        assert 0.55 < np.hypot(y, x) < 1 and y < 0.2
        shining = item if item["shortcut"] else opposed[i]
        assert grays(shining)[new].max() > 230


def test_the_clip_leaves_the_whole_brain_as_it_is_not_only_the_hematoma():
    """The brain, found in the slices without a clip: the dark region that bone encloses."""
    data = HematomaPhantom("train", 80, size=96)
    reached = 0
    for i in range(len(data)):
        pair = [grays(data.shortcut(strength)[i]) for strength in (0.0, 1.0)]
        brain = ndimage.binary_fill_holes(min(pair, key=np.sum) > 150) & (min(pair, key=np.sum) < 140)
        brain = ndimage.binary_erosion(ndimage.binary_opening(brain, iterations=2))
        changes = pair[0] != pair[1]
        assert brain.sum() > 2000 and not (changes & brain).any()
        reached += (changes & ndimage.binary_dilation(brain, iterations=4)).any()
    assert reached > 20, "no clip came near a brain, so that this test shows nothing"


@pytest.mark.parametrize(("split", "agreement"), [("train", 0.95), ("valid", 0.95), ("test", 0.95), ("unseen", 0.5)])
def test_the_clip_agrees_with_the_label_in_hospitals_1_to_4_and_not_in_5_to_11(drawn, split, agreement):
    targets, clips = column(drawn[split], "target"), column(drawn[split], "shortcut")
    for target in (0, 1):
        assert abs((clips == target)[targets == target].mean() - agreement) < allowed_error(agreement, N / 2)


@pytest.mark.parametrize(
    ("split", "hospitals"), [(split, range(1, 5)) for split in SPLITS[:3]] + [("unseen", range(5, 12))]
)
def test_a_patient_is_in_one_hospital_and_the_unseen_are_in_others(drawn, split, hospitals):
    numbers = column(drawn[split], "hospital").reshape(-1, 4)
    assert (numbers == numbers[:, :1]).all()
    assert set(numbers[:, 0]) == set(hospitals)
    counts = np.bincount(numbers[:, 0])[list(hospitals)]
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("split", SPLITS)
def test_only_hematomas_of_hospitals_1_to_4_are_annotated(drawn, split):
    for item in drawn[split]:
        blood = item["segmentation"] == 1
        there = HEMATOMA_SIGNS[item["sign"]] != "no hematoma"
        assert item["annotated"] == (there and split != "unseen")
        if split == "unseen":
            assert (item["segmentation"] == -100).all()
        else:
            assert blood.any() == there and set(item["segmentation"].unique().tolist()) <= {0, 1}
        expected = blood if item["annotated"] else torch.ones_like(blood)
        assert torch.equal(item["mask"][0], expected.float())


def test_hospitals_differ_in_noise_contrast_and_skull(drawn):
    """Measured in the images: noise between neighbours, bone against brain, and the length of the bright run."""
    measured = {number: [] for number in range(1, 12)}
    for item in drawn["train"] + drawn["unseen"]:
        picture = grays(item) / 255
        noise = np.diff(picture[45:50, 26:38], axis=1).std() / np.sqrt(2)
        bright = picture[32:] > (0.5 + 0.9 * 0.40) * 0.75
        thickness = bright[:, 30:34].mean(1).round().sum() * 2 / 64
        contrast = np.quantile(picture, 0.97) - np.median(picture[24:40, 24:40])
        measured[item["hospital"].item()].append((noise, contrast, thickness))
    found = np.array([np.median(measured[number], axis=0) for number in range(1, 12)])
    told = np.array([(h.noise, h.contrast, h.skull) for h in hematoma._HOSPITALS])
    assert len(set(map(tuple, told))) == 11
    for kind in range(3):
        assert stats.spearmanr(found[:, kind], told[:, kind]).statistic > 0.7, kind
