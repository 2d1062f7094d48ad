import numpy as np
import pytest
import torch

from attribguard.data import Crosses
from attribguard.demo.splits import load_splits
from attribguard.errors import DataError

FILES = ("distractor1.npz", "distractor2.npz", "distractor3.npz")
SIZES = (500, 128, 128)


def write(folder, name, n=6, size=(16, 16), labels=None):
    """A file whose images tell their number: image i has i pixels lit from the left of its first row."""
    image = np.zeros((n, *size), np.uint8)
    for number in range(n):
        image[number, 0, : number + 1] = 255
    mask = (image > 0).astype(np.uint8)
    np.savez(folder / name, image=image, mask=mask, label=np.arange(n) % 2 if labels is None else labels)


def numbers(split):
    return [int(image.sum()) - 1 for image in split.images]


def test_drawn_splits_are_crosses_of_that_seed():
    splits = load_splits(None, (6, 4, 2), seed=3)
    for part, (name, n) in zip(splits, (("train", 6), ("valid", 4), ("test", 2)), strict=True):
        crosses = Crosses(name, n, seed=3)
        assert torch.equal(part.images, crosses.images)
        assert torch.equal(part.targets, crosses.targets)
        assert torch.equal(part.masks, crosses.masks)


def test_of_files_training_images_are_drawn_and_the_others_mirrored(tmp_path):
    for name in FILES:
        write(tmp_path, name)
    train, valid, test = load_splits(tmp_path, (4, 1, 1), seed=0)
    assert len(set(numbers(train))) == 4
    assert numbers(valid) == numbers(test) == [0, 1, 2, 3, 4, 5]
    assert (train.images[:, 0, 0, 0] == 1).all() and (train.masks[:, 0, 0, 0] == 1).all()
    for mirrored in (valid, test):
        assert (mirrored.images[:, 0, 0, -1] == 1).all() and (mirrored.images[:, 0, 0, 0] == 0).all()
        assert torch.equal(mirrored.masks, mirrored.images)
    for part in (train, valid, test):
        assert part.targets.tolist() == [number % 2 for number in numbers(part)]


def test_the_draw_of_training_images_follows_the_seed(tmp_path):
    for name in FILES:
        write(tmp_path, name, n=16)
    drawn = [numbers(load_splits(tmp_path, (8, 1, 1), seed).train) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_small_file_is_used_whole(tmp_path):
    for name in FILES:
        write(tmp_path, name)
    assert sorted(numbers(load_splits(tmp_path, SIZES, seed=0).train)) == [0, 1, 2, 3, 4, 5]


def test_in_the_authors_files_the_distractor_changes_sides(actdiff_synth):
    train, valid, test = load_splits(actdiff_synth, SIZES, seed=0)
    assert (len(train.targets), len(valid.targets), len(test.targets)) == (500, 512, 512)
    for part, side in ((train, 1), (valid, 0), (test, 0)):
        box = (part.images * (1 - part.masks))[:, 0, 23:25]  # its two rows; a few crosses cover part of it
        left, right = box[..., :14].sum((1, 2)), box[..., 14:].sum((1, 2))
        assert ((left > right) == (part.targets == side)).all()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"name": "distractor3.npz", "labels": np.zeros(6, int)}, "one class in .*distractor3"),
        ({"name": "distractor2.npz", "size": (18, 18)}, "18 x 18 pixels in .*distractor2"),
        ({"name": "distractor1.npz", "size": (16, 18)}, "16 x 18 pixels in .*distractor1"),
        ({"name": "distractor1.npz", "size": (15, 15)}, "15 x 15 pixels in .*distractor1"),
    ],
)
def test_files_that_the_demo_cannot_use_are_refused_by_name(tmp_path, broken, message):
    for name in FILES:
        write(tmp_path, name)
    write(tmp_path, **broken)
    with pytest.raises(DataError, match=message):
        load_splits(tmp_path, SIZES, seed=0)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path, FILES[0])
    with pytest.raises(DataError, match=r"distractor2\.npz, where there is no file"):
        load_splits(tmp_path, SIZES, seed=0)
