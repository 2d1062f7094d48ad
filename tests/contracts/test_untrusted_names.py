"""Names and links that lead out of a folder, and files that would run a program: nothing is opened, nothing is run."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from attribguard.auditing import AuditReport
from attribguard.auditing.progress_file import ProgressFile
from attribguard.cli.subject import load_model
from attribguard.data import ChestXray14, Crosses, ImageFolderWithMasks, PadChest, read_idx
from attribguard.errors import DataError
from attribguard.models.swin_unet_keys import read_checkpoint
from attribguard.probes.patch_swap.pair_records import PairRecords
from attribguard.probes.patch_swap.scan_result import ScanResult
from attribguard.reproduce import records
from tests.contracts import bombs
from tests.contracts.fuzz.readers import READERS
from tests.contracts.fuzz.run import Bench
from tests.contracts.fuzz.watch import watched
from tests.data.picture_files import write_lines, write_png

BENCHES = {reader.name: reader for reader in READERS}
OUT = (
    "../outside/secret.png", "../../outside/secret.png", "{outside}/secret.png", ".out/secret.png", "./.out/secret.png",
    "..", "/etc/passwd", "~/secret.png", "%2e%2e/outside/secret.png", "..\\outside\\secret.png", "images\\a.png",
)  # fmt: skip


def replaced(bench, file, old, new):
    """The file with one name in it exchanged, as the format would quote it."""
    content = bench.valid[file].decode()
    assert old in content
    name = new.format(outside=bench.outside)
    return content.replace(old, json.dumps(name)[1:-1] if file.endswith(".json") else name, 1).encode()


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize(
    ("reader", "file", "old"),
    [
        ("image folder", "labels.csv", "a.png"), ("image folder", "boxes.csv", "a.png"),
        ("ChestX-ray14", "Data_Entry_2017.csv", "1_000.png"), ("ChestX-ray14", "BBox_List_2017.csv", "1_000.png"),
        ("ChestX-ray14", "train_val_list.txt", "1_000.png"), ("PadChest", "table.csv", "a.png"),
        ("PadChest", "table.csv", ",0,"), ("Decathlon", "Task09_Spleen/dataset.json", "./imagesTr/0.nii.gz"),
        ("Decathlon", "Task09_Spleen/dataset.json", "./labelsTr/1.nii.gz"),
    ],
)  # fmt: skip
def test_a_name_in_a_table_that_leads_out_of_the_folder_is_not_opened(reader, file, old, name, tmp_path):
    if reader not in BENCHES:
        pytest.skip("the packages of the extra `medical` are not installed")
    bench = Bench(BENCHES[reader], tmp_path)
    new = f",{name}," if old == ",0," else name
    outcome, words, _ = bench.read_damaged(file, replaced(bench, file, old, new))
    assert outcome in ("accepted", "refused"), words


LINKED = [
    ("image folder", "images/a.png"), ("image folder", "masks/a.png"), ("image folder", "labels.csv"),
    ("image folder", "boxes.csv"), ("image folder", "images"), ("image folder", "masks"),
    ("ChestX-ray14", "images/1_000.png"), ("ChestX-ray14", "Data_Entry_2017.csv"), ("ChestX-ray14", "test_list.txt"),
    ("ChestX-ray14", "train_val_list.txt"), ("ChestX-ray14", "BBox_List_2017.csv"), ("ChestX-ray14", "images"),
    ("PadChest", "0/a.png"), ("PadChest", "table.csv"), ("PadChest", "0"), ("DICOM", "0001.dcm"),
    ("DICOM masks", "seg.dcm"), ("DICOM masks", "0001.png"), ("DICOM masks", "0002.nii.gz"),
    ("Decathlon", "Task09_Spleen/imagesTr/0.nii.gz"), ("Decathlon", "Task09_Spleen/labelsTr/0.nii"),
    ("Decathlon", "Task09_Spleen/imagesTr"), ("Decathlon", "Task09_Spleen/dataset.json"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "file"), LINKED)
def test_a_link_out_of_the_folder_is_not_followed(reader, file, tmp_path):
    if reader not in BENCHES:
        pytest.skip("the packages of the extra `medical` are not installed")
    bench = Bench(BENCHES[reader], tmp_path)
    path, outside = bench.folder / file, bench.outside / "moved"
    path.rename(outside)
    path.symlink_to(outside)
    outcome, words, _ = watched(bench.reader.read, bench.folder, bench.outside)
    assert outcome in ("accepted", "refused"), words


def test_members_of_an_archive_are_written_nowhere(tmp_path):
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "a.npz", "w") as archive:
        for name, array in bombs.ARRAYS.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)
            for place in (f"../{name}.npy", f"{tmp_path}/{name}.npy", f"..\\{name}.npy"):
                archive.writestr(place, b"x")
    assert len(Crosses.from_npz(tmp_path / "data" / "a.npz")) == 2
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.npz", "data"]


def test_folders_within_folders_beyond_all_measure_are_listed_or_refused(tmp_path):
    write_lines(tmp_path / "labels.csv", "file,label", "a.png,1")
    write_png(tmp_path / "images" / "a.png", np.zeros((2, 2), np.uint8))
    here = os.open(tmp_path / "images", os.O_RDONLY)
    for _ in range(3000):  # longer than any path may be
        os.mkdir("x", dir_fd=here)
        deeper = os.open("x", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    try:
        with pytest.raises(DataError, match="cannot be listed"):
            ImageFolderWithMasks(tmp_path, masks="none")
    finally:
        take_apart(tmp_path / "images" / "x")


def take_apart(folder):
    """Removes folders within folders of which no path names the last."""
    while (folder / "x").exists():
        (folder / "x").rename(folder.parent / "y")
        folder.rmdir()
        (folder.parent / "y").rename(folder)
    folder.rmdir()


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def evil_files(folder, path):
    """A file for each reader that holds a pickle, with the reader."""
    evil = Evil(path)
    with (folder / "array.npz").open("wb") as file:
        np.savez(file, **bombs.ARRAYS | {"label": np.array([evil, evil], dtype=object)})
    torch.save({"weight": evil}, folder / "zip.pt")
    torch.save({"weight": evil}, folder / "older.pt", _use_new_zipfile_serialization=False)
    (folder / "bare.pt").write_bytes(pickle.dumps(evil))
    for file in ("zip.pt", "older.pt", "bare.pt"):
        yield file, lambda path: load_model("tests.contracts.fuzz.readers:linear", path, 2, 3)
        yield file, read_checkpoint
    yield "array.npz", Crosses.from_npz
    whole = pickle.dumps(evil)
    readers = {
        "a.npz": Crosses.from_npz, "a.gz": lambda path: read_idx(path, 1), "a.json": AuditReport.from_json,
        "b.jsonl": PairRecords, "c.jsonl": records.read, "d.jsonl": lambda path: ProgressFile(path, {}, {}),
        "a.safetensors": lambda path: load_model("tests.contracts.fuzz.readers:linear", path, 2, 3),
    }  # fmt: skip
    for file, read in readers.items():
        (folder / file).write_bytes(whole)
        yield file, read


def test_no_pickle_is_run_by_any_reader(tmp_path):
    (tmp_path / "data").mkdir()
    made = tmp_path / "made"
    pickle.loads(pickle.dumps(Evil(made))).close()
    assert made.exists(), "the pickle would not have run anyway, so that this test shows nothing"
    made.unlink()
    for file, read in evil_files(tmp_path / "data", made):
        with pytest.raises(DataError):
            read(tmp_path / "data" / file)
        assert not made.exists(), file


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.npz", Crosses.from_npz), ("a.gz", lambda path: read_idx(path, 1)), ("a.json", AuditReport.from_json),
        ("a.jsonl", PairRecords), ("a.jsonl", records.read), ("a.jsonl", lambda path: ProgressFile(path, {}, {})),
        ("a.pt", lambda path: load_model("tests.contracts.fuzz.readers:linear", path, 2, 3)),
        ("a.safetensors", lambda path: load_model("tests.contracts.fuzz.readers:linear", path, 2, 3)),
        ("a.pt", read_checkpoint), ("labels.csv", lambda path: ImageFolderWithMasks(path.parent)),
        ("table.csv", lambda path: PadChest(path.parent, "table.csv")),
        ("Data_Entry_2017.csv", lambda path: ChestXray14(path.parent, None)),
    ],
)  # fmt: skip
def test_a_pipe_in_the_place_of_a_file_does_not_stop_a_reader_for_ever(name, read, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError):
        read(tmp_path / name)


def test_text_of_a_scan_that_is_no_json_is_refused():
    for text in ("[" * 100_000, bombs.scan(passes="5"), bombs.scan(picture=[[300] * 4] * 4), bombs.scan(seed=2**70)):
        with pytest.raises(DataError, match="no scan"):
            ScanResult.from_json(text)


@pytest.mark.parametrize("content", [b"a note of mine", b"\xff\xd8\xff", b"{}", b"[1,\n2]"])
@pytest.mark.parametrize("read", [PairRecords, lambda path: ProgressFile(path, {}, {})])
def test_a_file_of_something_else_is_not_taken_for_an_interrupted_one_and_cut(read, content, tmp_path):
    (tmp_path / "mine").write_bytes(content)
    with pytest.raises(DataError):
        read(tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == content


def test_classes_named_by_more_digits_than_a_number_may_have_are_sorted_by_their_size(tmp_path):
    names = ["1" + "0" * 5000, "010", "9", "2" * 5000]
    write_lines(tmp_path / "labels.csv", "file,label", *(f"{i}.png,{name}" for i, name in enumerate(names)))
    for i in range(len(names)):
        write_png(tmp_path / "images" / f"{i}.png", np.zeros((2, 2), np.uint8))
    assert ImageFolderWithMasks(tmp_path, masks="none").labels == ("9", "010", "2" * 5000, "1" + "0" * 5000)
