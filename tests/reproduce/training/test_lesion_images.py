import numpy as np
import pytest
import torch

from attribguard.errors import DataError
from attribguard.reproduce import RECIPES, Run
from attribguard.reproduce.training.lesion_images import draw_lesions, read_chest_xray14
from attribguard.reproduce.training.lesions_row import train_lesions_row
from tests.data.picture_files import write_lines, write_png
from tests.data.pictures.test_chest_xray14 import BOX_HEADER, HEADER

FINDINGS = ("Mass", "Nodule")


@pytest.fixture
def folder(tmp_path):
    """Sixty patients to train on with two pictures each, and forty to test, of whom every fifth has a box."""
    rng, lines, lists, boxes = np.random.default_rng(0), [HEADER], {"train_val": [], "test": []}, [BOX_HEADER]
    for patient in range(100):
        split = "test" if patient >= 60 else "train_val"
        for visit in range(1 if split == "test" else 2):
            name, finding = f"{patient + 1:08}_{visit:03}.png", FINDINGS[patient % 2]
            write_png(tmp_path / "images" / name, rng.integers(0, 256, (32, 32)))
            lines.append(f"{name},{finding},{visit},{patient + 1},058Y,M,PA,2682,2749,0.143,0.143,")
            lists[split].append(name)
            if split == "test" and patient % 5 == 0:
                boxes.append(f"{name},{finding},4,8,16,12,,,")
    write_lines(tmp_path / "Data_Entry_2017.csv", *lines)
    write_lines(tmp_path / "BBox_List_2017.csv", *boxes)
    for split, names in lists.items():
        write_lines(tmp_path / f"{split}_list.txt", *names)
    return tmp_path


def test_the_data_sets_own_test_list_is_kept_and_the_other_parted_by_patient(folder):
    train, valid, test, boxed = read_chest_xray14(folder, (1000, 1000, 25), 32, 0)
    assert (len(train), len(valid), len(test), len(boxed)) == (108, 12, 25, 8)
    learnt, held_out = (part.tensors["image"].flatten(1) for part in (train, valid))
    assert not any(bool((learnt == image).all(1).any()) for image in held_out)


def test_masks_are_the_boxes_and_are_scaled_with_the_image(folder):
    for size, inside in ((32, 16 * 12), (16, 8 * 6)):
        boxed = read_chest_xray14(folder, (4, 4, 4), size, 0).boxed
        assert boxed.tensors["mask"].shape[1:] == (1, size, size)
        assert boxed.tensors["mask"].flatten(1).sum(1).eq(inside).all()


def test_a_test_list_without_boxes_is_refused(folder):
    write_lines(folder / "BBox_List_2017.csv", BOX_HEADER, "00000001_000.png,Mass,4,8,16,12,,,")
    with pytest.raises(DataError, match=r"without a box on test_list\.txt"):
        read_chest_xray14(folder, (4, 4, 4), 32, 0)


def test_the_table_trains_on_the_folder(folder):
    recipe = RECIPES["imbalance"].on_data()
    row = recipe.rows[0]
    settings = {**recipe.sizes["default"].settings, **row.settings, "size": 32, "growth": 2, "epochs": 1}
    metrics = train_lesions_row(Run(settings, 0, True, folder, torch.device("cpu"))).metrics
    assert set(metrics) == {*recipe.metrics, "valid"}
    assert all(np.isfinite(value) for value in metrics.values())


def test_drawn_lesions_are_tested_in_their_own_boxes():
    splits = draw_lesions((6, 4, 5), 32, 1)
    assert [len(part) for part in splits] == [6, 4, 5, 5] and splits.boxed is splits.test
