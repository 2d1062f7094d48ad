"""Plain arrays out of ``.npz`` files that may not be trusted: nothing is unpickled, and no header is believed."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from attribguard.errors import DataError

__all__ = ["read_npz"]

_MOST = 2**28  # bytes of an array
_HEADER = 2**12  # bytes; those of plain arrays take 128
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks others a block at once, however much it holds
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_BROKEN = (
    OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error,
    NotImplementedError, RuntimeError,  # zipfile's, of methods that it does not know and of passwords
    TypeError, SyntaxError, tokenize.TokenError, LookupError, RecursionError,  # numpy's, of headers that are none
)  # fmt: skip


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Read arrays of numbers, booleans or text.

    A member must hold exactly as many bytes as its header says, which is looked at before memory is set aside.

    Args:
        path: an ``.npz`` file.
        names: of the arrays.

    Returns:
        The arrays by their names, without those that are not there.

    Raises:
        DataError: if the file is missing, no ``.npz`` file or damaged, or an array holds anything else or more than
            2**28 bytes.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", label=np.array([1, 0]), more=np.zeros(3))
        ...     read_npz(Path(folder, "a.npz"), ["label", "image"])
        {'label': array([1, 0])}
    """
    if not path.is_file():
        raise DataError(got=f"{path}, where there is no file", needed="an .npz file", fix="check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            held = set(archive.namelist())
            return {name: _read(archive, f"{name}.npy") for name in names if f"{name}.npy" in held}
    except _BROKEN as error:
        raise DataError(
            got=f"{path}, which is no .npz file, is damaged, or holds Python objects, never unpickled ({error})",
            needed=f"an .npz file of plain arrays, each of {_MOST} bytes or fewer",
            fix="write it again with np.savez",
        ) from error


def _read(archive: zipfile.ZipFile, name: str) -> NDArray[np.generic]:
    if archive.getinfo(name).compress_type not in _METHODS:
        raise ValueError(f"{name} packed by a method that np.savez does not use")
    with archive.open(name) as member:
        start = io.BytesIO(member.read(_HEADER))
        version = npy.read_magic(start)
        if version not in _HEADERS:
            raise ValueError(f"{name} in version {version} of the format")
        shape, by_columns, dtype = _HEADERS[version](start)
        if dtype.kind not in "biufcSU":
            raise ValueError(f"{name} of the type {dtype}")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size > _MOST:
            raise ValueError(f"{name} of {shape}")
        values = start.read()
        values += member.read(max(0, size + 1 - len(values)))  # one byte more than promised would show
    if len(values) != size:
        raise ValueError(f"{name} of {shape} with {len(values)} bytes or more of {size}")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if by_columns else "C")
