"""Headers that promise 10**12 pixels, and packed bytes that unpack to many: refused, and no memory is taken."""

import gzip
import tracemalloc
import zipfile
import zlib

import pytest

from attribguard.cli.subject import load_model
from attribguard.data import Crosses, read_idx
from attribguard.data.files import read_picture
from attribguard.data.medical.nifti import open_volume
from attribguard.errors import DataError
from attribguard.models.swin_unet_keys import read_checkpoint
from attribguard.probes.patch_swap.scan_result import ScanResult
from tests.contracts import bombs
from tests.contracts.bombs import BOMB, SIDE
from tests.contracts.fuzz.watch import resident_peak
from tests.data.picture_files import chunk, png_file

MEGABYTES = 32


def linear(path):
    return load_model("tests.contracts.fuzz.readers:linear", path, 2, 3)


def volume(path):
    return open_volume(path).unpack()


def scan(path):
    return ScanResult.from_json(path.read_text())  # which reads no files itself


def numbers(path):
    return read_idx(path, 3)


def labels(path):
    return read_idx(path, 1)


def text(kind):
    return bombs.png(2, bombs.text_bomb(kind), rows=bytes(6))


HEADERS = {
    "npz": ("a.npz", lambda: bombs.npz((SIDE, SIDE)), Crosses.from_npz, "of .1000000, 1000000."),
    "npz of bytes without end": ("a.npz", lambda: bombs.npz((10**12, 6, 6)), Crosses.from_npz, "image.npy of"),
    "IDX": ("a.gz", lambda: bombs.idx((10**4,) * 3), numbers, "in a file of"),
    "IDX as large as allowed": ("a.gz", lambda: bombs.idx((2**10,) * 3), numbers, "in a file of"),
    "PNG": ("a.png", lambda: bombs.png(SIDE), read_picture, "claims 1000000 x 1000000 pixels"),
    "PNG of one line": (
        "a.png", lambda: png_file((2**20, 1, 16, 2, 0, 0, 0), zlib.compress(bytes(6 * 2**20 + 1))), read_picture,
        "claims 1048576 x 1 pixels",
    ),
    "JPEG": ("a.jpg", lambda: bombs.jpeg(65500, 65500), read_picture, "claims 65500 x 65500|cannot be read"),
    "NIfTI-1": ("a.nii", lambda: bombs.nifti((32767,) * 3), volume, "where its header says"),
    "NIfTI-1 packed": ("a.nii.gz", lambda: gzip.compress(bombs.nifti((32767,) * 3)), volume, "in a file of"),
    "NIfTI-2": ("a.nii", lambda: bombs.nifti((SIDE, SIDE, 1), version=2), volume, "where its header says"),
    "NIfTI-2 packed": ("a.nii.gz", lambda: gzip.compress(bombs.nifti((SIDE, SIDE), version=2)), volume, "in a file of"),
    "checkpoint": ("a.pt", lambda: bombs.weights(bombs.more_values), linear, "cannot be loaded|not this network's"),
    "older checkpoint": ("a.pt", lambda: bombs.weights(bombs.more_values, legacy=True), linear, "cannot be loaded"),
    "Swin checkpoint": ("a.pt", lambda: bombs.weights(bombs.more_values), read_checkpoint, "cannot be read|more than"),
    "safetensors": ("a.safetensors", lambda: bombs.safetensors([SIDE, SIDE]), linear, "cannot be loaded"),
    "scan": (
        "a.json", lambda: bombs.scan(grid={"image": [SIDE, SIDE], "patch": SIDE // 2, "stride": SIDE // 2}), scan,
        "a picture of another shape",
    ),
    "scan of pixels": (
        "a.json", lambda: bombs.scan(grid={"image": [SIDE, SIDE], "patch": 1, "stride": 1}), scan, "positions that"
    ),
}  # fmt: skip

UNPACKED = {
    "npz": ("a.npz", lambda: bombs.npz(more=BOMB), Crosses.from_npz, "bytes or more"),
    "npz by bzip2": ("a.npz", lambda: bombs.npz(more=BOMB, method=zipfile.ZIP_BZIP2), Crosses.from_npz, "by a method"),
    "npz by LZMA": ("a.npz", lambda: bombs.npz(more=BOMB, method=zipfile.ZIP_LZMA), Crosses.from_npz, "by a method"),
    "IDX": ("a.gz", lambda: bombs.idx((10,), BOMB), labels, "11 bytes or more"),
    "PNG rows": ("a.png", lambda: bombs.png(3, rows=BOMB), read_picture, "bytes of pixels or more"),
    "PNG text": ("a.png", lambda: text(b"zTXt"), read_picture, "cannot be decoded"),
    "PNG international text": ("a.png", lambda: text(b"iTXt"), read_picture, "cannot be decoded"),
    "PNG profile": ("a.png", lambda: text(b"iCCP"), read_picture, "cannot be decoded"),
    "PNG more pixels": (
        "a.png", lambda: bombs.png(2, chunk(b"IDAT", zlib.compress(BOMB, 1)), rows=bytes(6)), read_picture,
        "bytes of pixels",
    ),
    "NIfTI": ("a.nii.gz", lambda: gzip.compress(bombs.nifti((2, 2, 2), bytes(8)) + BOMB, 1), volume, "or more where"),
    "checkpoint": (
        "a.pt",
        lambda: bombs.weights(lambda name, content: BOMB if name.endswith("data/0") else content, zipfile.ZIP_DEFLATED),
        linear, "compressed parts",
    ),
    "checkpoint of overlapping parts": ("a.pt", lambda: bombs.overlapping_weights(200), linear, "lie over each other"),
    "Swin checkpoint": ("a.pt", lambda: bombs.weights(method=zipfile.ZIP_DEFLATED), read_checkpoint, "cannot be read"),
}  # fmt: skip


def refused_in_little_memory(path, content, read, words):
    content = content.encode() if isinstance(content, str) else content
    assert len(content) < 2**21
    path.write_bytes(content)
    before = resident_peak(reset=True)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words) as caught:
            read(path)
        traced = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.suffix == ".json" or str(path) in caught.value.got
    assert traced < MEGABYTES * 2**20
    assert resident_peak() - before < MEGABYTES * 2**20


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_of_a_million_by_a_million_is_refused_before_memory_is_set_aside(kind, tmp_path):
    name, content, read, words = HEADERS[kind]
    refused_in_little_memory(tmp_path / name, content(), read, words)


@pytest.mark.parametrize("kind", UNPACKED)
def test_what_unpacks_to_more_than_was_said_is_not_unpacked(kind, tmp_path):
    name, content, read, words = UNPACKED[kind]
    refused_in_little_memory(tmp_path / name, content(), read, words)


def test_a_picture_of_many_scans_is_not_decoded(tmp_path):
    """libjpeg goes through all pixels for each scan, and each of these takes 11 bytes of file."""
    (tmp_path / "a.jpg").write_bytes(bombs.jpeg(8000, 8000, scans=20_000))
    with pytest.raises(DataError, match="more scans than any picture needs"):
        read_picture(tmp_path / "a.jpg")
