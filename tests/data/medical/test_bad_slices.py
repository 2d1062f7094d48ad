"""Damaged and hostile DICOM files: a right reading, or one error that names the file."""

import os
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribguard.data.medical.slices import read_slices
from attribguard.errors import DataError

pytest.importorskip("SimpleITK", reason="SimpleITK writes the files, and is not installed")
pydicom = pytest.importorskip("pydicom", reason="pydicom reads the files, and is not installed")

from tests.data.medical.ct_files import edit, filled, grid, item, uid, write_series  # noqa: E402 (needs both)

SHAPE = (3, 40, 60)  # more bytes than are read with a header
HU = np.random.default_rng(0).integers(-1000, 2000, SHAPE).astype(np.int16)
PIXELS = struct.pack("<HH", 0x7FE0, 0x0010)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def replace(path, old, new):
    """Bytes that occur once, by as many others."""
    content = path.read_bytes()
    assert content.count(old) == 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new))


def deflate(path, more=b""):
    """Write the file with the deflated transfer syntax: all that follows the meta information, as zlib packs it."""
    dataset = pydicom.dcmread(path)
    plain = path.with_suffix(".tmp")
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(plain, implicit_vr=False, little_endian=True, enforce_file_format=True)
    content = plain.read_bytes()
    plain.unlink()
    end = 132 + 12 + struct.unpack("<I", content[140:144])[0]
    meta = pydicom.filebase.DicomBytesIO()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    pydicom.filewriter.write_file_meta_info(meta, dataset.file_meta)
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(content[end:] + more) + packer.flush()
    path.write_bytes(content[:132] + meta.getvalue() + packed)


def link_away(path):
    outside = path.parent.parent / "outside.dcm"
    path.rename(outside)
    path.symlink_to(outside)


def leave_a_dead_link(path):
    path.unlink()
    path.symlink_to(path.parent / "gone.dcm")


def make_a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def compress_without_decoder(path):
    write_series(path.parent / "again", filled(grid(SHAPE), HU), compressor="JPEG")
    (path.parent / "again" / path.name).rename(path)
    for left in (path.parent / "again").iterdir():
        left.unlink()


DAMAGE = {
    "no bytes": (lambda path: cut(path, 0), "does not start as a DICOM file"),
    "cut in the preamble": (lambda path: cut(path, 100), "does not start as a DICOM file"),
    "cut in the meta information": (lambda path: cut(path, 200), "cannot be read"),
    "cut in the header": (lambda path: cut(path, 700), "cannot be read|has no pixel data|has the modality None"),
    "cut in the pixels": (lambda path: cut(path, path.stat().st_size - 1), "cannot be read"),
    "other text": (lambda path: path.write_text("no picture" * 99), "does not start as a DICOM file"),
    "no pixels": (lambda path: edit(path, PixelData=None), "has no pixel data"),
    "too few pixels": (lambda path: edit(path, PixelData=b"\0" * 4798), "holds 4798 bytes of pixels .* says 4800"),
    "too many pixels": (lambda path: edit(path, PixelData=b"\0" * 4802), "holds 4802 bytes of pixels .* says 4800"),
    "another width": (lambda path: edit(path, Columns=59), "holds 4800 bytes of pixels .* says 4720"),
    "no height": (lambda path: edit(path, Rows=0), "says 0 x 60 pixels"),
    "no Rows": (lambda path: edit(path, Rows=None), "cannot be read"),
    "12 bits allocated": (lambda path: edit(path, BitsAllocated=12), "pixels of 12 bits"),
    "two frames": (lambda path: edit(path, NumberOfFrames=2), "has 2 frames of 1 values"),
    "colours": (lambda path: edit(path, SamplesPerPixel=3), "has 1 frames of 3 values"),
    "no slope": (lambda path: edit(path, RescaleSlope=None), "has no rescale slope"),
    "empty intercept": (lambda path: edit(path, RescaleIntercept=""), "has no rescale slope"),
    "slope 0": (lambda path: edit(path, RescaleSlope="0"), "has the rescale slope 0"),
    "slope NaN": (lambda path: edit(path, RescaleSlope="nan"), "has the rescale slope nan|cannot be read"),
    "a table": (lambda path: edit(path, ModalityLUTSequence=[item(LUTExplanation="odd")]), "has no rescale slope"),
    "other units": (lambda path: edit(path, RescaleType="Z_EFF"), "type 'Z_EFF'"),
    "an MR": (lambda path: edit(path, Modality="MR"), "has the modality 'MR'"),
    "no UID": (lambda path: edit(path, SOPInstanceUID=""), "empty SOPInstanceUID"),
    "a UID again": (lambda path: edit(path, SOPInstanceUID=uid(0)), "with the SOPInstanceUID of 0001.dcm"),
    "spacing 0": (lambda path: edit(path, PixelSpacing=[0, 1]), "has the PixelSpacing"),
    "beyond all scanners": (lambda path: edit(path, ImagePositionPatient=["1e308", "1e308", "0"]), "cannot be read"),
    "one spacing": (lambda path: edit(path, PixelSpacing=[1]), "cannot be read"),
    "skew directions": (lambda path: edit(path, ImageOrientationPatient=[1, 0, 0, 0.5, 1, 0]), "no two directions"),
    "neither place nor number": (
        lambda path: edit(path, ImagePositionPatient=None, InstanceNumber=None),
        "in a series that no positions put in order",
    ),
    "deflated": (deflate, "is deflated as a whole"),
    "no decoder": (compress_without_decoder, "compressed as JPEG Lossless.*no decoder"),
    "a link outside": (link_away, "leads out of the folder"),
    "a dead link": (leave_a_dead_link, "is no file"),
    "a pipe": (make_a_pipe, "is no file"),
}


def refused(folder):
    """The words of the error."""
    with pytest.raises(DataError) as caught:
        read_slices(folder)
    return str(caught.value)


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "ct"
    write_series(folder, filled(grid(SHAPE), HU))
    return folder


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_file_is_one_error_that_names_it(series, kind):
    damage, words = DAMAGE[kind]
    damage(series / "0002.dcm")
    with pytest.raises(DataError, match=words) as caught:
        read_slices(series)
    assert "0002.dcm" in str(caught.value)


@pytest.mark.parametrize("kind", DAMAGE)
def test_skipping_leaves_out_the_bad_file_and_says_why(series, kind):
    damage, words = DAMAGE[kind]
    damage(series / "0002.dcm")
    slices = read_slices(series, on_error="skip")
    assert slices.files == ["0001.dcm", "0003.dcm"]
    np.testing.assert_array_equal(slices[1]["image"][0], HU[2])
    [(file, reason)] = slices.skipped
    assert file == "0002.dcm"
    assert re.search(words, reason) and reason == refused(series)


@pytest.fixture
def compressed(tmp_path):
    folder = tmp_path / "ct"
    write_series(folder, filled(grid((2, 64, 64)), np.tile(HU[:2, :32, :32], (1, 2, 2))), compressor="JPEG2000")
    return folder


def test_pixels_that_cannot_be_decoded_are_an_error_when_they_are_asked_for(compressed):
    replace(compressed / "0002.dcm", b"\xff\x4f\xff\x51", b"\xff\x4f\xff\xff")  # the start of JPEG 2000
    slices = read_slices(compressed)
    assert slices[0]["image"].shape == (1, 64, 64)
    with pytest.raises(DataError, match=r"0002\.dcm, which cannot be read .*pixels can be decoded"):
        slices[1]
    skipping = read_slices(compressed, on_error="skip")
    assert skipping.files == ["0001.dcm"] and [file for file, _ in skipping.skipped] == ["0002.dcm"]


@pytest.mark.parametrize(
    "header",
    [{"Rows": 32, "Columns": 128}, {"PixelRepresentation": 0}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}],
)
def test_compressed_pixels_that_belie_the_header_are_an_error(compressed, header):
    edit(compressed / "0002.dcm", **header)
    slices = read_slices(compressed, size=64)
    with pytest.raises(DataError, match=r"0002\.dcm, which holds \(64, 64\) pixels of 16 bits, signed=1, where"):
        slices[1]


def test_file_that_changes_after_it_was_listed_is_an_error(series):
    slices = read_slices(series)
    edit(series / "0002.dcm", Rows=60, Columns=40)
    with pytest.raises(DataError, match=r"0002\.dcm, which changed"):
        slices[1]
    link_away(series / "0003.dcm")
    with pytest.raises(DataError, match="leads out of the folder"):
        slices[2]


def test_folder_without_slices_is_an_error(tmp_path):
    with pytest.raises(DataError, match="without a CT slice"):
        read_slices(tmp_path)
    with pytest.raises(DataError, match="nowhere, which is no folder"):
        read_slices(tmp_path / "nowhere")
    (tmp_path / "1.dcm").write_text("text")
    with pytest.raises(DataError, match="1 files were skipped"):
        read_slices(tmp_path, on_error="skip")


def peak(call):
    tracemalloc.start()
    try:
        call()
    finally:
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return used


def test_deflated_file_is_not_unpacked(series):
    deflate(series / "0002.dcm", more=bytes(2**27))
    assert (series / "0002.dcm").stat().st_size < 2**20
    assert peak(lambda: refused(series)) < 2**22


@pytest.mark.parametrize("element", [PIXELS, struct.pack("<HH", 0x0020, 0x0032), struct.pack("<HH", 0x0010, 0x0020)])
def test_length_beyond_the_file_costs_no_memory(series, element):
    path = series / "0002.dcm"
    content = path.read_bytes()
    at = content.index(element) + 4  # implicit VR: the length follows the tag
    path.write_bytes(content[:at] + struct.pack("<I", 0x7FFFFFF0) + content[at + 4 :])
    assert peak(lambda: refused(series)) < 2**22


def test_huge_slice_that_is_compressed_is_refused_before_it_is_decoded(compressed):
    edit(compressed / "0002.dcm", Rows=60000, Columns=60000)
    assert "60000 x 60000 pixels, compressed" in refused(compressed)
    assert peak(lambda: refused(compressed)) < 2**22


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    return write_series(folder, filled(grid((1, 8, 9)), HU[:1, :8, :9]))[0]


@given(st.data())
def test_whatever_bytes_are_changed_nothing_but_a_slice_or_a_data_error_comes(whole, data):
    original = whole.read_bytes()
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(128, len(content)))] if data.draw(st.booleans()) else content
    whole.write_bytes(content)
    words = str(whole.parent)
    try:
        assert read_slices(whole.parent)[0]["image"].isfinite().all()
    except DataError as error:
        words = str(error)
    finally:
        whole.write_bytes(original)
    assert str(whole.parent) in words
