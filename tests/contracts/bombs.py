"""Files that promise or hold far more than their size, byte by byte from the definitions of their formats."""

import gzip
import io
import json
import struct
import zipfile
import zlib

import numpy as np
import torch

from tests.data.idx_files import idx_bytes
from tests.data.picture_files import chunk, png_file, segment

SIDE = 10**6  # squared: 10**12 pixels
BOMB = bytes(2**26)
ARRAYS = {"image": np.zeros((2, 6, 6), np.uint8), "mask": np.zeros((2, 6, 6), np.uint8), "label": np.zeros(2, np.uint8)}


def npz(image_header=None, more=b"", method=zipfile.ZIP_DEFLATED):
    """An archive for `Crosses.from_npz`; its image under another header, or with more behind it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in ARRAYS.items():
            one = io.BytesIO()
            np.save(one, array)
            content = one.getvalue()
            if name == "image":
                start = content[:128] if image_header is None else _npy_header(image_header)
                content = start + content[128:] + more
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def _npy_header(shape):
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", 118) + text.encode()


def jpeg(height, width, scans=1):
    """A gray JPEG file of one 8 x 8 block, whose header says otherwise; its scan as often as asked."""
    scan = segment(0xDA, b"\1\1\0\0\x3f\0") + b"\x00"
    return b"".join([
        b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64),
        segment(0xC0, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"),
        segment(0xC4, b"\0" + bytes([0, 0, 0, 12, *[0] * 12]) + bytes(range(12))),
        segment(0xC4, b"\x10" + bytes([1, *[0] * 15]) + b"\0"), scan * scans, b"\xff\xd9",
    ])  # fmt: skip


def png(side, *before, rows=b"\0" * 9):
    return png_file((side, side, 8, 0, 0, 0, 0), zlib.compress(rows), *before)


def text_bomb(kind):
    """A chunk that unpacks to much text, or to a colour profile."""
    start = {b"zTXt": b"key\0\0", b"iTXt": b"key\0\1\0\0\0", b"iCCP": b"name\0\0"}[kind]
    return chunk(kind, start + zlib.compress(BOMB, 1))


def nifti(sides, values=b"", version=1):
    """A volume of bytes whose header says so many voxels."""
    header = bytearray(352 if version == 1 else 544)
    dims = [len(sides), *sides, *[1] * (7 - len(sides))]
    if version == 1:
        struct.pack_into("<i", header, 0, 348)
        struct.pack_into("<8h", header, 40, *dims)
        struct.pack_into("<hh", header, 70, 2, 8)
        struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
        struct.pack_into("<f", header, 108, 352)
        struct.pack_into("<h", header, 254, 1)
        struct.pack_into("<12f", header, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
        header[344:348] = b"n+1\0"
    else:
        struct.pack_into("<i8s", header, 0, 540, b"n+2\0\r\n\x1a\n")
        struct.pack_into("<hh8q", header, 12, 2, 8, *dims)
        struct.pack_into("<8d", header, 104, 1, 1, 1, 1, 0, 0, 0, 0)
        struct.pack_into("<q", header, 168, 544)
        struct.pack_into("<ii", header, 344, 0, 1)
        struct.pack_into("<12d", header, 400, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    return bytes(header) + values


def idx(lengths, payload=bytes(10)):
    return gzip.compress(idx_bytes(lengths, payload), 1)


def weights(change=lambda name, content: content, method=zipfile.ZIP_STORED, legacy=False):
    """What torch.save makes of a Linear(3, 2), with parts exchanged."""
    file = io.BytesIO()
    torch.save(torch.nn.Linear(3, 2).state_dict(), file, _use_new_zipfile_serialization=not legacy)
    if legacy:
        return change("", file.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(packed, "w", method) as new:
        for part in old.infolist():
            new.writestr(part.filename, change(part.filename, old.read(part)))
    return packed.getvalue()


def more_values(name, content):
    """The pickle of a checkpoint whose weight, a storage of 6 values, says that it has 10**12."""
    number = (10**12).to_bytes(6, "little")
    return content.replace(b"K\x06", b"\x8a\x06" + number)


def overlapping_weights(copies):
    """A checkpoint that names one stored part many times, of which each counts as a part of its own."""
    file = io.BytesIO(weights(lambda name, content: content + bytes(2**20) * name.endswith("data/0")))
    with zipfile.ZipFile(file, "a") as archive:
        large = max(archive.infolist(), key=lambda part: part.file_size)
        archive.filelist += [large] * copies
        archive._didModify = True
    return file.getvalue()


def safetensors(shape):
    size = 4 * int(np.prod([float(side) for side in shape]))
    head = json.dumps({"weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(24)


def scan(**changes):
    """The text of a scan with fields exchanged."""
    plain = {
        "certainty": [[[0.5] * 4] * 2] * 8, "baseline": [0.5] * 8, "source_class": [0] * 8, "passes": 5, "seed": 0,
        "grid": {"image": [4, 4], "patch": 2, "stride": 2}, "mode": "swap", "reduce": "mean", "dropout": None,
        "left_out": 0, "picture": [[0] * 4] * 4,
    }  # fmt: skip
    return json.dumps(plain | changes)
