import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from attribguard.data.pictures.chest_xray14 import CHEST_FINDINGS, ChestXray14
from attribguard.errors import DataError
from tests.data.picture_files import write_lines, write_png

HEADER = (  # of the table as the NIH gives it out; the commas within brackets part columns too
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
TRAIN = ["00000001_000.png", "00000001_001.png", "00000003_000.png"]
TEST = ["00000002_000.png", "00000013_026.png"]
FINDINGS = {
    TRAIN[0]: "Cardiomegaly",
    TRAIN[1]: "Cardiomegaly|Emphysema",
    TRAIN[2]: "Hernia|Infiltration",
    TEST[0]: "No Finding",
    TEST[1]: "Atelectasis|Pleural_Thickening",
}
RNG = np.random.default_rng(0)
IMAGES = {name: RNG.integers(0, 256, (16, 16)) for name in FINDINGS}
BOXES = [
    f"{TRAIN[1]},Cardiomegaly,2.5,3,8,4.25,,,",
    f"{TRAIN[2]},Infiltrate,0,0,16,16,,,",
    f"{TEST[1]},Atelectasis,1,2,3,4,,,",
    f"{TRAIN[1]},Emphysema,1,2,3,4,,,",
]


def entry(name, findings, patient=None):
    return f"{name},{findings},{int(name[9:12])},{patient or int(name[:8])},058Y,M,PA,2682,2749,0.143,0.143,"


ENTRIES = [entry(name, findings) for name, findings in FINDINGS.items()]


@pytest.fixture
def folder(tmp_path):
    for name, image in IMAGES.items():
        write_png(tmp_path / "images" / name, image)
    write_lines(tmp_path / "Data_Entry_2017.csv", HEADER, *ENTRIES)
    write_lines(tmp_path / "train_val_list.txt", *TRAIN)
    write_lines(tmp_path / "test_list.txt", *TEST)
    write_lines(tmp_path / "BBox_List_2017.csv", BOX_HEADER, *BOXES)
    return tmp_path


def names(data):
    return [file.rsplit("/", 1)[1] for file in data.files]


def test_the_lists_give_the_pictures_and_the_table_their_findings(folder):
    train, test = ChestXray14(folder, "train_val_list.txt"), ChestXray14(folder, "test_list.txt")
    assert (names(train), names(test)) == (TRAIN, TEST)
    assert (train.boxed.tolist(), test.boxed.tolist()) == ([False, True, True], [False, True])
    for data in (train, test):
        for index, name in enumerate(names(data)):
            item = data[index]
            assert torch.equal((item["image"] * 255).round().long(), torch.tensor(IMAGES[name])[None])
            found = {data.labels[at] for at in item["target"].nonzero().flatten()}
            assert found == set(FINDINGS[name].split("|")) - {"No Finding"}
            assert item["target"].shape == (14,) and item["target"].dtype == torch.float32
            assert set(item["target"].tolist()) <= {0, 1} and item["group"] == str(int(name[:8]))
    assert train.labels == CHEST_FINDINGS and len(set(CHEST_FINDINGS)) == 14
    assert train.groups == ["1", "1", "3"] and train.targets.sum(1).tolist() == [1, 2, 2]
    assert names(ChestXray14(folder, None)) == list(FINDINGS)


def test_boxes_go_with_their_pictures_and_fill_up_to_the_most(folder):
    data = ChestXray14(folder, "train_val_list.txt")
    batch = next(iter(DataLoader(data, batch_size=3, num_workers=2)))
    expected = torch.zeros(3, 2, 4)
    expected[1] = torch.tensor([[2.5, 3, 10.5, 7.25], [1, 2, 4, 6]])
    expected[2, 0] = torch.tensor([0.0, 0, 16, 16])
    assert torch.equal(batch["boxes"], expected)
    cardiomegaly, emphysema, infiltration = map(CHEST_FINDINGS.index, ("Cardiomegaly", "Emphysema", "Infiltration"))
    assert batch["box_classes"].tolist() == [[-1, -1], [cardiomegaly, emphysema], [infiltration, -1]]
    assert "boxes" not in ChestXray14(folder, None, boxes=None)[0]
    write_lines(folder / "BBox_List_2017.csv", BOX_HEADER)
    assert ChestXray14(folder, None)[0]["boxes"].shape == (0, 4)


def test_boxes_are_scaled_with_the_image(folder):
    item = ChestXray14(folder, "train_val_list.txt", size=(8, 32))[1]
    assert item["image"].shape == (1, 8, 32)
    assert item["boxes"].tolist() == [[5, 1.5, 21, 3.625], [2, 1, 8, 3]]


def test_the_editions_of_the_tables_are_read_alike(folder):
    expected = ChestXray14(folder, None)
    (folder / "Data_Entry_2017.csv").unlink()
    later = HEADER.replace("Gender", "Sex").removesuffix(",")
    write_lines(folder / "Data_Entry_2017_v2020.csv", later, *[line.removesuffix(",") for line in ENTRIES])
    write_lines(folder / "BBox_List_2017.csv", BOX_HEADER[:-3], *[line[:-3] for line in BOXES])
    data = ChestXray14(folder, None)
    assert torch.equal(data.targets, expected.targets) and data.groups == expected.groups
    assert all(torch.equal(data[index]["boxes"], expected[index]["boxes"]) for index in range(5))


def test_two_tables_need_a_name(folder):
    write_lines(folder / "Data_Entry_2017_v2020.csv", HEADER, *ENTRIES)
    with pytest.raises(DataError, match=r"Data_Entry_2017\.csv and Data_Entry_2017_v2020\.csv"):
        ChestXray14(folder, None)
    assert len(ChestXray14(folder, None, table="Data_Entry_2017_v2020.csv")) == 5
    (folder / "Data_Entry_2017_v2020.csv").unlink()
    (folder / "Data_Entry_2017.csv").unlink()
    with pytest.raises(DataError, match="with none"):
        ChestXray14(folder, None)


def test_pictures_may_lie_in_the_folders_of_the_archives(folder):
    for part, name in (("images_001", TRAIN[0]), ("images_012", TEST[1])):
        (folder / part / "images").mkdir(parents=True)
        (folder / "images" / name).rename(folder / part / "images" / name)
    data = ChestXray14(folder, None)
    assert data.files[0] == f"images_001/images/{TRAIN[0]}" and data.files[4] == f"images_012/images/{TEST[1]}"
    assert torch.equal((data[4]["image"][0] * 255).round().long(), torch.tensor(IMAGES[TEST[1]]))
    write_png(folder / "images_002" / "images" / TRAIN[1], IMAGES[TRAIN[1]])
    with pytest.raises(DataError, match=f"{TRAIN[1]} in images_002/images and as images/{TRAIN[1]}"):
        ChestXray14(folder, None)


def test_pictures_that_came_as_rgba_become_gray(folder):
    image = np.stack([*[IMAGES[TRAIN[1]]] * 3, np.full((16, 16), 255)], -1)
    write_png(folder / "images" / TRAIN[1], image)
    item = ChestXray14(folder, "train_val_list.txt")[1]
    assert torch.equal((item["image"] * 255).round().long(), torch.tensor(IMAGES[TRAIN[1]])[None])


def lines_with(table, line, at=1):
    """Puts a line in the place of another one."""
    header, lines = {"Data_Entry_2017.csv": (HEADER, ENTRIES), "BBox_List_2017.csv": (BOX_HEADER, BOXES)}[table]
    lines = [line if place == at else other for place, other in enumerate(lines)]
    return lambda folder: write_lines(folder / table, header, *lines)


ENTRY, BOX = "Data_Entry_2017.csv", "BBox_List_2017.csv"
ONE = TRAIN[1]
WRONG = {
    "finding": (lines_with(ENTRY, entry(ONE, "Cardiomegaly|Cough")), "unknown finding 'Cough'", ENTRY, 3, ONE),
    "both": (lines_with(ENTRY, entry(ONE, "No Finding|Mass")), "unknown finding 'No Finding'", ENTRY, 3, ONE),
    "nothing": (lines_with(ENTRY, entry(ONE, "")), "unknown finding ''", ENTRY, 3, ONE),
    "patient": (lines_with(ENTRY, f"{ONE},Mass,1,,,,,,,,,"), "without a patient", ENTRY, 3, ONE),
    "cells": (lines_with(ENTRY, f"{ONE},Mass,1,1"), "4 cells", ENTRY, 3, ONE),
    "file": (lambda folder: (folder / "images" / ONE).unlink(), "does not exist", ENTRY, 3, ONE),
    "cut": (lambda folder: (folder / "images" / ONE).write_bytes(b"\x89PNG"), "cannot be read", ENTRY, 3, ONE),
}  # fmt: skip
WRONG_BOXES = {
    "right": (f"{TRAIN[2]},Mass,10,0,6.01,4,,,", "from 10, 0 to 16.01, 4 in"),
    "below": (f"{TRAIN[2]},Mass,0,10,4,7,,,", "of 16 x 16 pixels"),
    "left": (f"{TRAIN[2]},Mass,-1,0,4,4,,,", "from -1, 0"),
    "above": (f"{TRAIN[2]},Mass,1,-2,4,4,,,", "from 1, -2"),
    "empty": (f"{TRAIN[2]},Mass,1,2,0,4,,,", "the box 1, 2, 0, 4"),
    "turned": (f"{TRAIN[2]},Mass,1,2,3,-4,,,", "the box"),
    "nan": (f"{TRAIN[2]},Mass,1,2,nan,4,,,", "the box"),
    "infinite": (f"{TRAIN[2]},Mass,inf,2,3,4,,,", "the box"),
    "words": (f"{TRAIN[2]},Mass,a,2,3,4,,,", "the box a, 2, 3, 4"),
    "missing": (f"{TRAIN[2]},Mass,1,2,3", "5 cells"),
    "finding": (f"{TRAIN[2]},Cough,1,2,3,4,,,", "unknown finding 'Cough'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_picture_is_one_error_that_names_its_line_or_is_skipped_and_listed(folder, case):
    act, words, table, line, name = WRONG[case]
    act(folder)
    with pytest.raises(DataError, match=words) as raised:
        ChestXray14(folder, None, boxes=None)
    assert raised.value.got.endswith(f"(line {line} of {folder / table})")
    data = ChestXray14(folder, None, boxes=None, on_error="skip")
    assert names(data) == [other for other in FINDINGS if other != name]
    assert data.skipped == [(name, str(raised.value))]


@pytest.mark.parametrize("case", WRONG_BOXES)
def test_a_wrong_box_is_one_error_that_names_its_line_or_is_skipped_and_listed(folder, case):
    line, words = WRONG_BOXES[case]
    lines_with(BOX, line)(folder)
    with pytest.raises(DataError, match=words) as raised:
        ChestXray14(folder, "train_val_list.txt")
    assert raised.value.got.endswith(f"(line 3 of {folder / BOX})")
    data = ChestXray14(folder, "train_val_list.txt", on_error="skip")
    assert data.skipped == [(TRAIN[2], str(raised.value))] and names(data) == TRAIN
    assert data[2]["box_classes"].tolist() == [-1, -1] and data[1]["box_classes"].min() >= 0


def test_a_box_of_a_picture_that_is_not_in_the_table_is_refused(folder):
    lines_with(BOX, "00099999_000.png,Mass,1,2,3,4,,,")(folder)
    with pytest.raises(DataError, match=r"99999_000\.png, which is not in the table of findings \(line 3"):
        ChestXray14(folder, None)


def test_a_picture_twice_in_the_table_is_refused(folder):
    write_lines(folder / ENTRY, HEADER, *ENTRIES, ENTRIES[1])
    with pytest.raises(DataError, match=rf"{TRAIN[1]} again, first in line 3 \(line 7"):
        ChestXray14(folder, None)
    assert names(ChestXray14(folder, None, on_error="skip")) == list(FINDINGS)


def test_a_picture_that_is_not_in_the_table_is_not_passed_over_in_silence(folder):
    write_png(folder / "images" / "00099999_000.png", IMAGES[TRAIN[0]])
    with pytest.raises(DataError, match=r"images/00099999_000\.png, which is not in"):
        ChestXray14(folder, "test_list.txt")
    assert [name for name, _ in ChestXray14(folder, None, on_error="skip").skipped] == ["00099999_000.png"]


def test_a_patient_on_both_lists_is_refused_on_either(folder):
    lines_with(ENTRY, entry(TEST[0], "No Finding", patient=3), at=3)(folder)
    for name, line, left in (("train_val_list.txt", 3, TRAIN[:2]), ("test_list.txt", 1, TEST[1:])):
        with pytest.raises(DataError, match="of patient 3, who is on") as raised:
            ChestXray14(folder, name)
        assert raised.value.got.endswith(f"(line {line} of {folder / name})")
        assert names(ChestXray14(folder, name, on_error="skip")) == left
    (folder / "test_list.txt").unlink()
    assert len(ChestXray14(folder, "train_val_list.txt")) == 3


def test_lists_of_the_users_own_may_lie_elsewhere(folder, tmp_path_factory):
    own = write_lines(tmp_path_factory.mktemp("lists") / "few.txt", TEST[1], TRAIN[0])
    assert names(ChestXray14(folder, own)) == [TEST[1], TRAIN[0]]
    write_lines(own, "00099999_000.png")
    with pytest.raises(DataError, match=r"not in the table \(line 1 of .*few\.txt"):
        ChestXray14(folder, own)


@pytest.mark.parametrize(
    ("missing", "options"),
    [("train_val_list.txt", {}), ("BBox_List_2017.csv", {}), ("own.csv", {"table": "own.csv"})],
)
def test_a_missing_table_or_list_is_one_clear_error(folder, missing, options):
    (folder / missing).unlink(missing_ok=True)
    with pytest.raises(DataError, match=f"{missing}, which does not exist"):
        ChestXray14(folder, "train_val_list.txt", **options)


def test_names_that_lead_out_of_the_folder_are_refused(folder):
    lines_with(ENTRY, f"../images/{TRAIN[1]},Mass,1,1,058Y,M,PA,1,1,1,1,")(folder)
    (folder / "images" / TRAIN[1]).unlink()
    with pytest.raises(DataError, match=r"no name in the folder .*line 3"):
        ChestXray14(folder, None, boxes=None)
    with pytest.raises(DataError, match="no name in the folder"):
        ChestXray14(folder, "../list.txt")
