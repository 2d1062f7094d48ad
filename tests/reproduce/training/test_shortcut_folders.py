import json

import numpy as np
import pytest
import torch

from attribguard.errors import DataError
from attribguard.reproduce.training.shortcut_folders import read_decathlon, read_sites
from attribguard.reproduce.training.shortcut_images import load_shortcut_splits
from tests.data.picture_files import write_lines, write_png
from tests.data.pictures.test_chest_xray14 import HEADER as NIH_HEADER
from tests.data.pictures.test_padchest import HEADER as PAD_HEADER

SETTINGS = {"train": 8, "valid": 4, "test": 4, "size": 16, "strength": 0.75, "dilate": 0, "masks": 1.0}


@pytest.fixture
def task(tmp_path):
    """Eight volumes of six slices, three of them with an organ as bright as its volume's number."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK writes the files, and is not installed")
    pytest.importorskip("nibabel", reason="nibabel reads the files, and is not installed")
    folder, entries = tmp_path / "Task09_Spleen", []
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for number in range(8):
        label = np.zeros((6, 16, 16), "u1")
        label[3:, 4:8, 4:8] = 1
        for place, values in (("imagesTr", label * (number + 1.0) * 100), ("labelsTr", label)):
            sitk.WriteImage(sitk.GetImageFromArray(values.astype("i2")), str(folder / place / f"s_{number}.nii.gz"))
        entries.append({"image": f"./imagesTr/s_{number}.nii.gz", "label": f"./labelsTr/s_{number}.nii.gz"})
    labels = {"0": "background", "1": "spleen"}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "training": entries, "numTraining": 8}))
    return folder


def test_half_of_the_decathlons_slices_show_the_organ_and_values_are_stretched(task):
    parts = read_decathlon(task, (8, 4, 100), 16, 0)
    assert [len(part) for part in parts] == [8, 4, 12]
    for part in parts:
        target, mask, annotated = (part.tensors[key] for key in ("target", "mask", "annotated"))
        assert target.sum() * 2 == len(target) and torch.equal(annotated, target == 1)
        assert mask[target == 1].flatten(1).sum(1).eq(16).all() and mask[target == 0].eq(1).all()
        assert part.tensors["image"].amin() == 0 and part.tensors["image"].amax() == 1


def test_the_decathlon_trains_as_the_table_asks(task):
    splits = load_shortcut_splits({**SETTINGS, "data": "decathlon"}, task, 0)
    assert list(splits.tests) == ["test"] and len(splits.train) == 8


def test_a_split_without_the_organ_is_refused(task):
    nibabel = pytest.importorskip("nibabel")
    for number in range(8):
        path = task / "labelsTr" / f"s_{number}.nii.gz"
        empty = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.zeros(empty.shape, "u1"), empty.affine), path)
    with pytest.raises(DataError, match="no slice with the organ in the train split"):
        read_decathlon(task, (8, 4, 4), 16, 0)


@pytest.fixture
def sites(tmp_path):
    """Eighty patients a site with one picture each, half of them with emphysema."""
    rng, pad_lines, nih_lines = np.random.default_rng(0), [PAD_HEADER], [NIH_HEADER]
    for number in range(80):
        ill = number % 2
        pad, nih = f"pad_{number}.png", f"{number + 1:08}_000.png"
        write_png(tmp_path / "padchest" / "0" / pad, rng.integers(0, 65536, (8, 8)), bits=16)
        write_png(tmp_path / "chest-xray14" / "images" / nih, rng.integers(0, 256, (8, 8)))
        labels = "['emphysema']" if ill else "['normal']"
        pad_lines.append(
            f"{number},{pad},0,20140915,sid,{number},1930.0,F,POSTERO,PA,Manual,No,{'1,' * 16}4765,"
            f'"sin, hallazgos",Physician,"{labels}",[],[],[],[]'
        )
        finding = "Emphysema" if ill else "No Finding"
        nih_lines.append(f"{nih},{finding},0,{number + 1},058Y,M,PA,2682,2749,0.143,0.143,")
    write_lines(tmp_path / "padchest" / "table.csv", *pad_lines)
    write_lines(tmp_path / "chest-xray14" / "Data_Entry_2017.csv", *nih_lines)
    return tmp_path


def test_two_sites_become_four_balanced_splits_with_a_circle_as_mask(sites):
    parts = read_sites(sites, 0.75, 16, 0)
    assert len(parts) == 4
    for part in parts:
        assert part.tensors["target"].float().mean() == 0.5 and part.tensors["image"].shape[1:] == (1, 16, 16)
        assert part.tensors["annotated"].all() and 0 < part.tensors["mask"].mean() < 1


def test_sites_train_as_the_table_asks(sites):
    splits = load_shortcut_splits({**SETTINGS, "data": "site folders"}, sites, 0)
    assert list(splits.tests) == ["test", "seen"]


def test_a_folder_without_the_sites_is_refused(tmp_path):
    with pytest.raises(DataError, match="0 CSV tables in"):
        read_sites(tmp_path, 0.9, 16, 0)
