import json
import os

import numpy as np
import pytest

from attribguard.data.medical import series
from attribguard.data.medical.slices import read_slices

pytest.importorskip("SimpleITK", reason="SimpleITK writes the files, and is not installed")
pytest.importorskip("pydicom", reason="pydicom reads the files, and is not installed")

from tests.data.medical.ct_files import edit, filled, grid, write_series

HU = np.random.default_rng(0).integers(-1000, 2000, (4, 5, 7)).astype(np.int16)


@pytest.fixture
def folder(tmp_path):
    write_series(tmp_path / "ct", filled(grid(HU.shape), HU))
    return tmp_path / "ct"


@pytest.fixture
def read(monkeypatch):
    """The names of the files whose headers were read."""
    names = []
    load = series.load
    monkeypatch.setattr(
        series, "load", lambda path, *args, **options: (names.append(path.name), load(path, *args, **options))[1]
    )
    return names


def test_headers_are_read_once_and_again_when_a_file_changes(folder, tmp_path, read):
    first = read_slices(folder, cache=tmp_path / "cache")
    assert len(read) == 4
    read.clear()
    again = read_slices(folder, cache=tmp_path / "cache")
    assert read == [] and again.slices == first.slices
    np.testing.assert_array_equal(again[2]["image"], first[2]["image"])
    edit(folder / "0002.dcm", PatientID="another")
    os.utime(folder / "0003.dcm", (0, 0))
    assert read_slices(folder, cache=tmp_path / "cache").groups == ["p1", "another", "p1", "p1"]
    assert read == ["0002.dcm", "0003.dcm"]


def test_without_a_cache_nothing_is_kept(folder, read):
    read_slices(folder), read_slices(folder)
    assert len(read) == 8 and sorted(os.listdir(folder)) == [f"000{number}.dcm" for number in (1, 2, 3, 4)]


def test_bad_files_are_read_each_time(folder, tmp_path, read):
    edit(folder / "0002.dcm", Modality="MR")
    for _ in range(2):
        read.clear()
        slices = read_slices(folder, cache=tmp_path / "cache", on_error="skip")
        assert [file for file, _ in slices.skipped] == ["0002.dcm"] and "0002.dcm" in read
    assert read == ["0002.dcm"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: "no json",
        lambda files: files | {"0001.dcm": [1]},
        lambda files: files | {"0001.dcm": [*files["0001.dcm"][:2], {}]},
        lambda files: files | {"0001.dcm": [*files["0001.dcm"][:2], files["0001.dcm"][2] | {"size": "5 x 7"}]},
        lambda files: files | {"0001.dcm": [*files["0001.dcm"][:2], files["0001.dcm"][2] | {"number": [1]}]},
    ],
)
def test_damaged_cache_is_made_anew(folder, tmp_path, read, damage):
    first = read_slices(folder, cache=tmp_path / "cache")
    [path] = (tmp_path / "cache").iterdir()
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"files": damage(content["files"])}))
    read.clear()
    assert read_slices(folder, cache=tmp_path / "cache").slices == first.slices
    assert "0001.dcm" in read
