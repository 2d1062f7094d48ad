"""What holds for every phantom: the same slices everywhere, patients in one split alone, one clear error."""

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from attribguard.data.phantoms import HematomaPhantom, LesionPhantom, OrganPhantom, SitesPhantom
from attribguard.errors import DataError
from tests.data.phantoms.drawn import allowed_error, column, grays, same

PHANTOMS = [HematomaPhantom, LesionPhantom, OrganPhantom, SitesPhantom]
TWO_CLASSES = [HematomaPhantom, OrganPhantom, SitesPhantom]
EVERY_SPLIT = [(phantom, split) for phantom in PHANTOMS for split in phantom.SPLITS]

every_phantom = pytest.mark.parametrize("phantom", PHANTOMS, ids=lambda phantom: phantom.__name__)
with_a_shortcut = pytest.mark.parametrize("phantom", TWO_CLASSES, ids=lambda phantom: phantom.__name__)
every_split = pytest.mark.parametrize(("phantom", "split"), EVERY_SPLIT)


@every_phantom
def test_a_slice_depends_neither_on_the_order_nor_on_the_number_nor_on_the_global_random_state(phantom):
    data = phantom("train", 12, seed=3)
    expected = [data[i] for i in range(12)]
    torch.rand(5), np.random.rand(5)  # noqa: NPY002 - the global states must not matter
    assert all(same(data[i], expected[i]) for i in reversed(range(12)))
    assert all(same(item, phantom("train", 100, seed=3)[i]) for i, item in enumerate(expected))
    assert all(same(a, b) for a, b in zip(data, expected, strict=True))
    assert same(data[-1], expected[11])


@every_phantom
def test_drawing_leaves_the_global_random_state_alone(phantom):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    phantom("train", 4)[2]
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@every_phantom
def test_workers_give_what_one_process_gives(phantom):
    data = phantom("train", 10, size=32)
    for alone, shared in zip(
        DataLoader(data, batch_size=4), DataLoader(data, batch_size=4, num_workers=2), strict=True
    ):
        assert same(alone, shared)


@every_phantom
def test_every_seed_and_split_has_its_own_slices(phantom):
    drawn = [
        grays(phantom(split, 1, seed=seed)[0]).tobytes()
        for split, seed in itertools.product(phantom.SPLITS, (0, 1, 2**32, 2**32 + 1, 2**64))
    ]
    assert len(set(drawn)) == len(drawn)


@every_phantom
def test_a_patient_has_four_slices_and_stands_in_one_split(phantom):
    patients = [[item["group"] for item in phantom(split, 12, size=32)] for split in phantom.SPLITS]
    for groups in patients:
        assert len(set(groups)) == 3
        assert groups == sorted(groups) and all(groups.count(group) == 4 for group in groups)
    assert len(set().union(*patients)) == 3 * len(phantom.SPLITS)


@every_split
def test_items_join_to_a_batch_that_a_guard_takes(phantom, split):
    data = phantom(split, 8, size=48)
    batch = default_collate(list(data))
    assert batch["image"].shape == (8, 1, 48, 48) and batch["image"].dtype == torch.float32
    assert batch["mask"].shape == (8, 1, 48, 48) and batch["mask"].dtype == torch.float32
    assert set(batch["mask"].unique().tolist()) <= {0.0, 1.0}
    assert batch["annotated"].shape == (8,) and batch["annotated"].dtype == torch.bool
    assert (batch["mask"][~batch["annotated"]] == 1).all()
    assert all(0 < share < 1 for share in batch["mask"][batch["annotated"]].mean((1, 2, 3)))
    several = phantom is LesionPhantom
    assert batch["target"].shape == ((8, 6) if several else (8,))
    assert batch["target"].dtype == (torch.float32 if several else torch.int64)
    assert len(batch["group"]) == 8 and all(isinstance(group, str) for group in batch["group"])
    if "segmentation" in batch:
        assert batch["segmentation"].shape == (8, 48, 48) and batch["segmentation"].dtype == torch.int64


@every_split
def test_images_are_whole_grays_of_eight_bits_and_use_their_range(phantom, split):
    images = torch.stack([item["image"] for item in phantom(split, 8)])
    assert torch.equal(images, (images * 255).round() / 255)
    assert images.min() < 0.05 and 0.7 < images.max() <= 1


@every_phantom
def test_another_size_shows_the_same_anatomy(phantom):
    for small, large in zip(phantom("valid", 8, size=48), phantom("valid", 8, size=96), strict=True):
        shrunk = torch.nn.functional.avg_pool2d(large["image"], 2)
        assert torch.corrcoef(torch.stack([shrunk.flatten(), small["image"].flatten()]))[0, 1] > 0.9
        assert torch.equal(small["target"], large["target"])
        if small["annotated"]:
            coarse = torch.nn.functional.avg_pool2d(large["mask"], 2)
            assert (coarse - small["mask"]).abs().sum() < 0.25 * (coarse + small["mask"]).sum()


@with_a_shortcut
def test_two_of_a_patients_four_slices_are_of_each_class_in_no_fixed_order(phantom):
    targets = column(phantom("train", 400, size=32), "target").reshape(100, 4)
    assert (targets.sum(1) == 2).all()
    assert len({tuple(row) for row in targets}) == 6  # all orders there are
    assert all(abs(share - 0.5) < allowed_error(0.5, 100) for share in targets.mean(0))


@with_a_shortcut
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_the_shortcut_agrees_with_the_label_as_often_as_it_is_told_to(phantom, strength):
    n = 400
    data = phantom("train", n, size=32, strength=strength)
    targets, shortcuts = column(data, "target"), column(data, "shortcut")
    for target in (0, 1):
        share = (shortcuts == target)[targets == target].mean()
        assert abs(share - strength) < allowed_error(strength, n / 2)


@with_a_shortcut
def test_shortcut_gives_another_data_set_and_leaves_this_one(phantom):
    data = phantom("train", 40, size=32)
    expected = list(data)
    opposed = data.shortcut(strength=0.0)
    assert type(opposed) is phantom and len(opposed) == 40
    assert all(same(a, b) for a, b in zip(data, expected, strict=True))
    assert all(same(a, b) for a, b in zip(data.shortcut(data.strength), expected, strict=True))
    assert (column(opposed, "shortcut") != column(opposed, "target")).all()
    for name in ("target", "mask", "annotated", "group"):
        assert all(same({name: a[name]}, {name: b[name]}) for a, b in zip(opposed, expected, strict=True))


@with_a_shortcut
def test_a_stronger_shortcut_keeps_every_slice_that_agreed(phantom):
    data = phantom("train", 200, size=32)
    targets = column(data, "target")
    weak, strong = (column(data.shortcut(strength), "shortcut") == targets for strength in (0.6, 0.9))
    assert strong[weak].all() and strong.sum() > weak.sum()


@every_phantom
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "testing"}, r"split='testing'; needed one of \('train', 'valid', 'test'"),
        ({"n": 0}, "n=0; needed a whole number, 1 to 4294967296"),
        ({"n": 10.0}, "n=10.0"),
        ({"n": True}, "n=True"),
        ({"n": 2**32 + 1}, "n=4294967297"),
        ({"size": 31}, "size=31; needed a whole number, 32 to 1024"),
        ({"size": 1025}, "size=1025"),
        ({"size": "64"}, "size='64'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 0.5}, r"seed=0\.5"),
    ],
)
def test_a_bad_option_is_one_clear_error(phantom, options, words):
    with pytest.raises(DataError, match=f"^got {words}"):
        phantom(**{"split": "train", "n": 8, **options})


@with_a_shortcut
@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf"), "0.9", None, True])
def test_a_bad_strength_is_one_clear_error(phantom, strength):
    data = phantom("train", 8)
    for build in (lambda: phantom("train", 8, strength=strength), lambda: data.shortcut(strength)):
        with pytest.raises(DataError, match=r"^got strength=.*; needed a number from 0 to 1"):
            build()


@every_phantom
def test_an_index_outside_ends_a_loop_and_no_other_type_is_taken(phantom):
    data = phantom("train", 5)
    assert len(list(data)) == len(data) == 5
    for index in (5, -6):
        with pytest.raises(IndexError, match=f"slice {index} of 5"):
            data[index]
    with pytest.raises(TypeError):
        data[1.0]
    assert same(data[np.int64(4)], data[torch.tensor(4)])
