import numpy as np
import pytest

from attribguard.cli.data_sets import BUILT_IN, load_data
from attribguard.errors import DataError
from tests.data.picture_files import write_lines, write_png
from tests.data.pictures.test_chest_xray14 import BOX_HEADER


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        write_png(tmp_path / "images" / f"{number}.png", np.full((16, 16), 60 * number))
    write_lines(
        tmp_path / "labels.csv", "file,label,split", *(f"{n}.png,{'ab'[n % 2]},{'xy'[n // 2]}" for n in range(4))
    )
    return tmp_path


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_set_gives_images_of_its_classes(name):
    data, classes, channels = load_data(name, None, 32, 12, 0)
    assert len(data) == 12 and channels == 1
    targets = {int(item["target"] if isinstance(item, dict) else item[1]) for item in (data[i] for i in range(12))}
    assert targets == set(range(len(classes)))


def test_a_folder_may_have_masks_boxes_both_or_neither(folder):
    data, classes, channels = load_data(str(folder), None, None, None, 0)
    assert (len(data), list(classes), channels) == (4, ["a", "b"], 1) and "mask" not in data[0]
    write_png(folder / "masks" / "1.png", np.eye(16) * 255)
    write_lines(folder / "BBox_List_2017.csv", BOX_HEADER, "2.png,Mass,4,8,12,8,,,")
    data, _, _ = load_data(str(folder), None, 8, None, 0)
    assert [bool(data[i]["annotated"]) for i in range(4)] == [False, True, False, False]
    assert data[2]["boxes"].tolist() == [[2, 4, 8, 8]] and data[2]["box_classes"].tolist() == [0]
    assert data[1]["box_classes"].tolist() == [-1] and data.boxed.tolist() == [False, False, True, False]


def test_a_split_is_a_part_of_the_folder_and_boxes_of_others_do_not_matter(folder):
    write_lines(folder / "BBox_List_2017.csv", BOX_HEADER, "0.png,Mass,4,8,12,8,,,")
    data, _, _ = load_data(str(folder), "y", None, None, 0)
    assert [item.split("/")[1] for item in data.files] == ["2.png", "3.png"] and not data.boxed.any()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("9.png,Mass,4,8,12,8,,,", "a box in '9.png'"),
        ("1.png,Mass,4,8,13,8,,,", "boxes within the picture"),
        ("1.png,Mass,4,8,0,8,,,", "w and h above 0"),
    ],
)
def test_boxes_that_cannot_be_are_refused(folder, line, words):
    write_lines(folder / "BBox_List_2017.csv", BOX_HEADER, line)
    with pytest.raises(DataError, match=words):
        load_data(str(folder), None, None, None, 0)


def test_what_is_neither_a_folder_nor_built_in_is_refused():
    with pytest.raises(DataError, match="one of crosses, hematomas"):
        load_data("nowhere", None, None, None, 0)
