import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from attribguard.data.pictures.image_folder import ImageFolderWithMasks
from attribguard.errors import DataError, RangeError
from tests.data.picture_files import jpeg_bytes, png_bytes, write_lines, write_png

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 4, 6))
MASKS = RNG.integers(0, 2, (6, 4, 6)) * 255
LINES = [
    "file,label,group,split",
    "a.png,sick,ann,train",
    "b.png,healthy,ann,train",
    "c.png,sick,bob,test",
    "d.png,healthy,cy,train",
    "e.png,sick,dee,test",
    "f.png,well,dee,test",
]
NAMES = [line.split(",")[0] for line in LINES[1:]]


@pytest.fixture
def folder(tmp_path):
    for name, image, mask in zip(NAMES, IMAGES, MASKS, strict=True):
        write_png(tmp_path / "images" / name, image)
        write_png(tmp_path / "masks" / name, mask)
    write_lines(tmp_path / "labels.csv", *LINES)
    return tmp_path


def test_items_are_what_the_files_hold_in_the_tables_order(folder):
    data = ImageFolderWithMasks(folder)
    assert data.labels == ("healthy", "sick", "well") and len(data) == 6
    for index, name in enumerate(NAMES):
        item = data[index]
        assert torch.equal((item["image"] * 255).round().long(), torch.tensor(IMAGES[index : index + 1]))
        assert torch.equal(item["mask"], torch.tensor(MASKS[index : index + 1] / 255).float())
        assert item["file"] == data.files[index] == f"images/{name}"
        assert item["annotated"].dtype == torch.bool and item["annotated"].shape == () and item["annotated"]
        assert set(item) == {"image", "mask", "annotated", "target", "group", "file"}
    assert data.targets.tolist() == [int(data[index]["target"]) for index in range(6)] == [1, 0, 1, 0, 1, 2]
    assert data.groups == [data[index]["group"] for index in range(6)] == ["ann", "ann", "bob", "cy", "dee", "dee"]
    assert data[0]["target"].dtype == torch.int64 and data[0]["target"].shape == () and data.skipped == []


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_for_any_number_of_workers(folder, workers):
    batches = list(DataLoader(ImageFolderWithMasks(folder), batch_size=4, num_workers=workers))
    assert [batch["file"] for batch in batches] == [
        [f"images/{name}" for name in part] for part in (NAMES[:4], NAMES[4:])
    ]
    images = torch.cat([batch["image"] for batch in batches])
    assert torch.equal((images * 255).round().long()[:, 0], torch.tensor(IMAGES))
    assert batches[0]["group"] == ["ann", "ann", "bob", "cy"] and batches[1]["mask"].shape == (2, 1, 4, 6)


def test_a_split_has_its_own_lines_and_the_classes_of_the_whole_table(folder):
    data = ImageFolderWithMasks(folder, "train")
    assert data.files == ["images/a.png", "images/b.png", "images/d.png"]
    assert data.labels == ("healthy", "sick", "well") and data.targets.tolist() == [1, 0, 0]
    with pytest.raises(DataError, match="no picture"):
        ImageFolderWithMasks(folder, "valid")


def test_classes_may_be_given_and_numbers_are_sorted_as_numbers(folder):
    assert ImageFolderWithMasks(folder, classes=["well", "sick", "healthy"]).targets.tolist() == [1, 2, 1, 2, 1, 0]
    write_lines(
        folder / "labels.csv", "label,file", *(f"{n},{f}" for n, f in zip([10, 9, 2, 10, 3, 2], NAMES, strict=True))
    )
    data = ImageFolderWithMasks(folder)
    assert data.labels == ("2", "3", "9", "10") and data.targets.tolist() == [3, 2, 0, 3, 1, 0]
    assert data.groups == NAMES  # without the column, each picture is a group


def test_masks_may_be_missing_where_the_user_says_so(folder):
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png without a mask .*line 3 of .*labels\.csv"):
        ImageFolderWithMasks(folder)
    data = ImageFolderWithMasks(folder, masks="some")
    assert [bool(data[index]["annotated"]) for index in range(3)] == [True, False, True]
    assert torch.equal(data[1]["mask"], torch.ones(1, 4, 6))
    assert "mask" not in ImageFolderWithMasks(folder, masks="none")[0]
    assert next(iter(DataLoader(data, batch_size=6)))["annotated"].tolist() == [True, False, True, True, True, True]


def test_a_folder_without_masks_is_read_where_none_are_wanted(folder):
    for name in NAMES:
        (folder / "masks" / name).unlink()
    (folder / "masks").rmdir()
    assert "annotated" not in ImageFolderWithMasks(folder, masks="none")[0]
    with pytest.raises(DataError, match="without a mask"):
        ImageFolderWithMasks(folder)


def test_the_mask_of_a_jpeg_file_is_a_png_file(folder):
    (folder / "images" / "g.jpg").write_bytes(jpeg_bytes([[40], [80]]))
    write_png(folder / "masks" / "g.png", np.eye(8, 16))
    write_lines(folder / "labels.csv", LINES[0], "g.jpg,sick,gus,test")
    for name in NAMES:
        (folder / "images" / name).unlink()
    item = ImageFolderWithMasks(folder)[0]
    assert item["mask"].sum() == 8 and item["image"].shape == (1, 8, 16)


def test_a_png_file_of_the_same_name_keeps_its_mask_for_itself(folder):
    (folder / "images" / "a.jpg").write_bytes(jpeg_bytes([[40], [80]]))
    write_lines(folder / "labels.csv", *LINES, "a.jpg,sick,gus,test")
    with pytest.raises(DataError, match=r"a\.jpg without a mask"):
        ImageFolderWithMasks(folder, size=8)


def test_a_new_size_resizes_images_and_masks_alike(folder):
    item = ImageFolderWithMasks(folder, size=(2, 3))[0]
    # Halving weighs four pixels by 1, 3, 3, 1, of which the image's edge may cut one off.
    down = np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7
    across = np.array([[3, 3, 1, 0, 0, 0], [0, 1, 3, 3, 1, 0], [0, 0, 0, 1, 3, 3]]) / [[7], [8], [7]]
    expected = down @ IMAGES[0] @ across.T / 255
    torch.testing.assert_close(item["image"], torch.tensor(expected).float()[None])
    shares = MASKS[0].reshape(2, 2, 3, 2).mean((1, 3)) / 255
    assert torch.equal(item["mask"], torch.tensor(shares >= 0.5).float()[None])
    assert ImageFolderWithMasks(folder, size=5)[0]["image"].shape == (1, 5, 5)


def test_channels_are_brought_to_the_wanted_number(folder):
    colours = RNG.integers(0, 256, (4, 6, 3))
    write_png(folder / "images" / "b.png", colours)
    write_png(folder / "images" / "c.png", np.stack([IMAGES[2]] * 3, -1))
    with pytest.raises(DataError, match=r"differ in channels: images/a\.png has 1 and images/b\.png 3"):
        ImageFolderWithMasks(folder)
    gray, rgb = ImageFolderWithMasks(folder, channels=1), ImageFolderWithMasks(folder, channels=3)
    assert torch.equal((gray[2]["image"] * 255).round().long(), torch.tensor(IMAGES[2:3]))
    luma = torch.tensor(colours @ [0.299, 0.587, 0.114] / 255).float()[None]
    torch.testing.assert_close(gray[1]["image"], luma)
    assert torch.equal(rgb[0]["image"], gray[0]["image"].expand(3, 4, 6))
    assert torch.equal((rgb[1]["image"] * 255).round().long(), torch.tensor(colours).permute(2, 0, 1))


def test_pictures_of_several_sizes_need_a_size(folder):
    write_png(folder / "images" / "b.png", np.zeros((5, 6)))
    write_png(folder / "masks" / "b.png", np.zeros((5, 6)))
    with pytest.raises(DataError, match=r"differ in size: .*\(4, 6\).*\(5, 6\)"):
        ImageFolderWithMasks(folder)
    assert len(next(iter(DataLoader(ImageFolderWithMasks(folder, size=4), batch_size=6)))["image"]) == 6


BROKEN = {
    "missing": (lambda folder: (folder / "images" / "c.png").unlink(), r"c\.png, which does not exist"),
    "cut": (lambda folder: (folder / "images" / "c.png").write_bytes(png_bytes(IMAGES[2])[:-9]), "cannot be read"),
    "no_mask": (lambda folder: (folder / "masks" / "c.png").unlink(), "without a mask"),
    "cut_mask": (lambda folder: (folder / "masks" / "c.png").write_bytes(b"P5"), "cannot be read"),
    "mask_size": (lambda folder: write_png(folder / "masks" / "c.png", np.zeros((6, 4))), r"\(6, 4\) pixels"),
}  # fmt: skip
WRONG_LINES = {
    "twice": ("c.png,sick,bob,test\nc.png,sick,bob,test", r"'c\.png' again, first in line 4", 5),
    "unlabelled": ("c.png,,bob,test", "no label", 4),
    "nan": ("c.png,NaN,bob,test", "no label", 4),
    "cells": ("c.png,sick", "2 cells", 4),
    "two_splits": ("c.png,sick,ann,test", "group 'ann' in split 'test', and in 'train' in line 2", 4),
    "climbs": ("../c.png,sick,bob,test", "no name in the folder", 4),
    "absolute": ("/c.png,sick,bob,test", "no name in the folder", 4),
    "masks": ("../masks/c.png,sick,bob,test", "no name in the folder", 4),
    "folder": ("sub,sick,bob,test", "is no file", 4),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_error_with_its_line_or_is_skipped_and_listed(folder, case):
    act, words = BROKEN[case]
    act(folder)
    with pytest.raises(DataError, match=words) as raised:
        ImageFolderWithMasks(folder)
    assert f"(line 4 of {folder / 'labels.csv'})" in raised.value.got and "c.png" in raised.value.got
    data = ImageFolderWithMasks(folder, on_error="skip")
    assert data.files == [f"images/{name}" for name in NAMES if name != "c.png"]
    assert data.skipped == [("c.png", str(raised.value))]
    assert [data[index]["file"] for index in range(5)] == data.files


@pytest.mark.parametrize("case", WRONG_LINES)
def test_a_wrong_line_is_one_error_that_names_it_or_is_skipped_and_listed(folder, case):
    line, words, number = WRONG_LINES[case]
    (folder / "images" / "sub").mkdir()
    write_lines(folder / "labels.csv", *LINES[:3], line, *LINES[4:])
    with pytest.raises(DataError, match=words) as raised:
        ImageFolderWithMasks(folder)
    assert f"(line {number} of {folder / 'labels.csv'})" in raised.value.got
    data = ImageFolderWithMasks(folder, on_error="skip")
    kept = [f"images/{name}" for name in NAMES if name != "c.png" or case == "twice"]
    assert data.files == kept and data.skipped[0] == (line.split("\n")[-1].split(",")[0], str(raised.value))


def test_unknown_labels_are_refused_where_classes_are_given(folder):
    with pytest.raises(DataError, match=r"unknown label 'well' \(line 7"):
        ImageFolderWithMasks(folder, classes=["healthy", "sick"])
    data = ImageFolderWithMasks(folder, classes=["healthy", "sick"], on_error="skip")
    assert len(data) == 5 and data.skipped[0][0] == "f.png"


def test_a_picture_that_is_not_in_the_table_is_not_passed_over_in_silence(folder):
    write_png(folder / "images" / "new.png", IMAGES[0])
    with pytest.raises(DataError, match=r"images/new\.png, which is not in"):
        ImageFolderWithMasks(folder)
    assert [file for file, _ in ImageFolderWithMasks(folder, on_error="skip").skipped] == ["new.png"]


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path_factory, part):
    outside = write_png(tmp_path_factory.mktemp("elsewhere") / "c.png", MASKS[2])
    (folder / part / "c.png").unlink()
    (folder / part / "c.png").symlink_to(outside)
    with pytest.raises(DataError, match=r"leads out of the folder .*line 4"):
        ImageFolderWithMasks(folder)


def test_a_table_that_is_a_link_out_of_the_folder_is_refused(folder, tmp_path_factory):
    outside = write_lines(tmp_path_factory.mktemp("elsewhere") / "labels.csv", *LINES)
    (folder / "labels.csv").unlink()
    (folder / "labels.csv").symlink_to(outside)
    with pytest.raises(DataError, match="leads out of the folder"):
        ImageFolderWithMasks(folder)


def test_a_file_that_becomes_a_link_or_another_picture_later_is_refused_when_read(folder, tmp_path_factory):
    data = ImageFolderWithMasks(folder)
    write_png(folder / "images" / "a.png", np.zeros((4, 7)))
    with pytest.raises(DataError, match=r"images/a\.png of shape \(1, 4, 7\), which had \(1, 4, 6\)"):
        data[0]
    write_png(folder / "masks" / "b.png", np.zeros((5, 6)))
    with pytest.raises(DataError, match=r"masks/b\.png of shape \(5, 6\)"):
        data[1]
    (folder / "images" / "c.png").unlink()
    (folder / "images" / "c.png").symlink_to(write_png(tmp_path_factory.mktemp("elsewhere") / "c.png", IMAGES[2]))
    with pytest.raises(DataError, match="leads out"):
        data[2]


def test_the_cache_changes_nothing_but_the_reading(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    for _ in range(2):
        data = ImageFolderWithMasks(folder, cache=cache)
        assert len(data) == 6 and data[5]["mask"].shape == (1, 4, 6)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"masks": "all"}, RangeError, "masks='all'"),
        ({"channels": 2}, RangeError, "channels=2"),
        ({"on_error": "warn"}, RangeError, "on_error='warn'"),
        ({"size": 0}, DataError, "size=0"),
        ({"size": (4, 1.5)}, DataError, r"size=1\.5"),
    ],
)
def test_a_bad_option_is_one_clear_error(folder, options, error, words):
    with pytest.raises(error, match=words):
        ImageFolderWithMasks(folder, **options)


def test_a_folder_without_a_table_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"labels\.csv, which does not exist"):
        ImageFolderWithMasks(tmp_path)
