"""The IDX format, in which MNIST and Fashion-MNIST come: a short header, then plain bytes."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path

import torch
from torch import Tensor

from attribguard.errors import DataError
from attribguard.plain_data import check_regular

__all__ = ["read_idx"]

_BYTES = 8  # the format's code for unsigned bytes, the only type these data sets use
_CHUNK = 2**20
_PACKED = 1032  # the most that gzip can pack into one byte
_MOST = 2**30  # bytes, unpacked
_FIX = "check the path, or fetch the file again"


def read_idx(path: str | os.PathLike[str], dims: int) -> Tensor:
    """Read a gzip-packed IDX file of unsigned bytes. Never unpickles, and never trusts the header with memory.

    The header holds two zero bytes, the code of the type, the number of axes, and the length of each axis as four
    bytes, the highest first. A header that promises more than gzip can have packed into the file is refused at once;
    the payload grows in steps, so that one that promises more than the file holds costs no more memory than that.

    Source: the description on the MNIST page (LeCun et al.). Departure: of its types only unsigned bytes are read.

    Args:
        path: the file, usually ``*-ubyte.gz``.
        dims: how many axes it must have: 3 for images (N, H, W), 1 for labels (N,).

    Returns:
        uint8 of that many axes, none of length 0.

    Raises:
        DataError: if the file is missing, not gzip, damaged, of another type or number of axes, empty, of more than
            2**30 bytes unpacked, or its payload is shorter or longer than its header says.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with gzip.open(f"{folder}/two.gz", "wb") as file:
        ...         _ = file.write(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]))
        ...     read_idx(f"{folder}/two.gz", dims=1)
        tensor([5, 7], dtype=torch.uint8)
    """
    path = Path(path)
    try:
        check_regular(path)
        with gzip.open(path) as file:
            start = file.read(4)
            if start != bytes([0, 0, _BYTES, dims]):
                needed = f"the IDX header {bytes([0, 0, _BYTES, dims]).hex(' ')}: unsigned bytes, {dims} axes"
                raise DataError(got=f"{path}, which starts with {start.hex(' ') or 'nothing'}", needed=needed, fix=_FIX)
            lengths = file.read(4 * dims)
            shape = [int.from_bytes(lengths[at : at + 4], "big") for at in range(0, 4 * dims, 4)]
            size, payload, packed = math.prod(shape), bytearray(), path.stat().st_size
            if size > min(_MOST, _PACKED * packed):
                raise DataError(
                    got=f"{path}, whose header says {tuple(shape)}, in a file of {packed} bytes",
                    needed=f"{_MOST} bytes or fewer, and no more than gzip can pack into the file",
                    fix=_FIX,
                )
            # One byte more than promised would show. All at once would set the promised memory aside before reading.
            while chunk := file.read(min(_CHUNK, size + 1 - len(payload))):
                payload += chunk
    except (OSError, EOFError, zlib.error) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise DataError(got=f"{path}, which cannot be read ({words})", needed="a gzip file", fix=_FIX) from error
    if len(payload) != size or size == 0:
        held = f"{len(payload)} bytes or more" if len(payload) > size else f"{len(payload)} bytes"
        raise DataError(
            got=f"{path}, whose header says {tuple(shape)} and which then holds {held}",
            needed="as many bytes as the header says, and at least one",
            fix=_FIX,
        )
    return torch.frombuffer(payload, dtype=torch.uint8).view(shape)
