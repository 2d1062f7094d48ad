import json
import os

import numpy as np
import pytest

from attribguard.data.files.picture_index import PictureIndex, list_files
from attribguard.errors import DataError
from tests.data.picture_files import write_png

NAMES = ["a.png", "deep/b.png", "c.png"]


@pytest.fixture
def folder(tmp_path):
    for height, name in enumerate(NAMES, start=1):
        write_png(tmp_path / "data" / name, np.zeros((height, 4)))
    return tmp_path / "data"


def heights(folder, cache=None):
    """Heights of all pictures, and how many files were opened for them."""
    with PictureIndex(folder, cache) as index:
        return [index[name].height for name in NAMES], index.reads


def test_each_header_is_read_once_in_an_index(folder):
    index = PictureIndex(folder)
    assert [index["a.png"], index["a.png"]] == [(1, 1, 4)] * 2
    assert index.reads == 1


def test_a_cache_saves_the_reading_in_the_next_run(folder, tmp_path):
    assert heights(folder, tmp_path / "new" / "cache") == ([1, 2, 3], 3)
    assert heights(folder, tmp_path / "new" / "cache") == ([1, 2, 3], 0)
    assert len(list((tmp_path / "new" / "cache").iterdir())) == 1


def test_nothing_is_kept_without_a_cache(folder, tmp_path):
    assert heights(folder) == heights(folder) == ([1, 2, 3], 3)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["a.png", "b.png", "c.png"]


def test_a_file_of_another_time_or_size_is_read_again(folder, tmp_path):
    heights(folder, tmp_path / "cache")
    before = (folder / "a.png").stat()
    write_png(folder / "a.png", np.zeros((8, 4)))
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns))  # its size alone differs
    assert heights(folder, tmp_path / "cache") == ([8, 2, 3], 1)
    write_png(folder / "c.png", np.zeros((4, 3)))
    os.utime(folder / "c.png", ns=(0, 0))
    assert heights(folder, tmp_path / "cache") == ([8, 2, 4], 1)
    os.utime(folder / "c.png", ns=(1, 1))  # its time alone differs
    assert heights(folder, tmp_path / "cache") == ([8, 2, 4], 1)


def test_folders_do_not_share_what_is_kept(folder, tmp_path):
    heights(folder, tmp_path / "cache")
    for name in NAMES:
        write_png(tmp_path / "other" / name, np.zeros((9, 4)))
    assert heights(tmp_path / "other", tmp_path / "cache") == ([9, 9, 9], 3)
    assert heights(folder, tmp_path / "cache") == ([1, 2, 3], 0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"3",
        b"{}",
        b'{"form": "x", "files": {}}',
        b'{"form": "attribguard pictures 1", "files": [1]}',
        b'{"form": "attribguard pictures 1", "files": {"a.png": [1, 2], "c.png": ["a", 1, 1, 1, 1]}}',
        b"[" * 100_000,
    ],
    ids="nothing bytes list number empty form files entries deep".split(),
)
def test_a_damaged_cache_is_made_anew(folder, tmp_path, content):
    heights(folder, tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(content)
    assert heights(folder, tmp_path / "cache") == ([1, 2, 3], 3)
    assert set(json.loads(file.read_text())["files"]) == set(NAMES)


def test_what_was_read_before_an_error_is_kept(folder, tmp_path):
    (folder / "c.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"c\.png"):
        heights(folder, tmp_path / "cache")
    write_png(folder / "c.png", np.zeros((3, 4)))
    assert heights(folder, tmp_path / "cache") == ([1, 2, 3], 1)


def test_names_out_of_the_folder_and_missing_files_are_errors_also_with_a_cache(folder, tmp_path):
    heights(folder, tmp_path / "cache")
    (folder / "a.png").unlink()
    index = PictureIndex(folder, tmp_path / "cache")
    with pytest.raises(DataError, match="does not exist"):
        index["a.png"]
    with pytest.raises(DataError, match="no name in the folder"):
        index["../data/c.png"]


def test_a_missing_folder_and_a_cache_that_cannot_be_written_are_one_clear_error_each(folder, tmp_path):
    with pytest.raises(DataError, match="no folder"):
        PictureIndex(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        heights(folder, tmp_path / "file")


def test_files_are_listed_in_order_without_hidden_ones_and_links_to_folders_are_not_entered(folder):
    (folder / ".DS_Store").write_text("")
    (folder / "link").symlink_to("..")
    assert list(list_files(folder)) == ["a.png", "c.png", "deep/b.png", "link"]
