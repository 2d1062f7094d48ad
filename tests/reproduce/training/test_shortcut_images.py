import pytest
import torch
from scipy import ndimage

from attribguard.errors import DataError
from attribguard.reproduce.training.shortcut_images import load_shortcut_splits

SETTINGS = {"train": 24, "valid": 8, "test": 8, "size": 32, "strength": 0.75, "dilate": 0, "masks": 1.0}


@pytest.mark.parametrize(("kind", "tests"), [("crosses", ["test"]), ("organs", ["test", "neutral"]), ("sites", None)])
def test_splits_have_the_sizes_that_were_asked_for(kind, tests):
    splits = load_shortcut_splits({**SETTINGS, "data": kind}, None, 0)
    assert (len(splits.train), len(splits.valid)) == (24, 8)
    assert list(splits.tests) == (tests or ["test", "seen"]) and {len(part) for part in splits.tests.values()} == {8}
    assert splits.train.tensors["image"].shape[0] == len(splits.train.tensors["annotated"])


def test_the_authors_files_are_read(actdiff_synth):
    splits = load_shortcut_splits({**SETTINGS, "data": "files"}, actdiff_synth, 0)
    assert (len(splits.train), len(splits.valid), len(splits.tests["test"])) == (24, 512, 512)


def test_files_that_are_missing_are_named(tmp_path):
    with pytest.raises(DataError, match=r"distractor1\.npz"):
        load_shortcut_splits({**SETTINGS, "data": "files"}, tmp_path, 0)


def test_masks_grow_and_only_those_of_the_training():
    plain, grown = (load_shortcut_splits({**SETTINGS, "data": "crosses", "dilate": n}, None, 0) for n in (0, 2))
    for mask, large in zip(plain.train.tensors["mask"], grown.train.tensors["mask"], strict=True):
        square = ndimage.binary_dilation(mask[0] > 0, structure=[[1] * 5] * 5)
        assert torch.equal(large[0] > 0, torch.from_numpy(square))
    assert torch.equal(plain.valid.tensors["mask"], grown.valid.tensors["mask"])


def test_the_share_of_masks_is_kept_and_nested_and_nothing_else_changes():
    parts = {
        share: load_shortcut_splits({**SETTINGS, "data": "crosses", "masks": share}, None, 0).train.tensors
        for share in (1.0, 0.5, 0.25)
    }
    kept = {share: tensors["annotated"] for share, tensors in parts.items()}
    assert [int(kept[share].sum()) for share in (1.0, 0.5, 0.25)] == [24, 12, 6]
    assert bool((kept[0.5] | ~kept[0.25]).all())
    assert torch.equal(parts[1.0]["image"], parts[0.25]["image"])


def test_another_seed_draws_other_images_and_the_same_one_the_same():
    first, again, other = (
        load_shortcut_splits({**SETTINGS, "data": "sites"}, None, seed).train.tensors["image"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
