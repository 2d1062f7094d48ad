"""A file of tensors and plain values that is read back exactly as it was written, or not at all."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from attribguard.errors import DataError, TypeMismatchError
from attribguard.plain_data import read_regular
from attribguard.weights_file import unpickle_plain
from attribguard.whole_files import write_files

__all__ = ["not_a_checkpoint", "read_checked", "write_checked"]

# Of the form of what `attribguard.checkpoint.save` writes; a change of that form counts it up.
_VERSION = 1
_HEADER = re.compile(rb"attribguard checkpoint (\d+) ([0-9a-f]{64})\n")


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file with its checksum, in one step in place of an earlier one.

    Args:
        path: the file, whose folder is made if need be.
        content: tensors and plain values.

    Raises:
        TypeMismatchError: if there is anything else in it, which could not be read back without running code.
        OSError: if the system does; a file that was there is then as before.
    """
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
        buffer.seek(0)
        foreign = ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(buffer)))
    except (pickle.PicklingError, AttributeError, TypeError) as error:  # such as of a lambda
        foreign = str(error)
    if foreign:
        raise TypeMismatchError(
            got=f"{foreign} in what is to be saved",
            needed="tensors and plain Python values, which can be read back without running code",
            fix="convert in state_dict(), such as a number of numpy's by float()",
        )
    payload = buffer.getbuffer()
    header = f"attribguard checkpoint {_VERSION} {hashlib.sha256(payload).hexdigest()}\n"
    write_files(path.parent, {path.name: (header.encode(), payload)})


def read_checked(path: Path) -> Any:
    """Read a file of :func:`write_checked`, all of it on the CPU. No code in it is ever run.

    Args:
        path: the file.

    Raises:
        DataError: if it is no such file, of another version, damaged, or cannot be read.
    """
    try:
        whole = memoryview(read_regular(path))
    except OSError as error:
        raise DataError(
            got=f"{path}, which cannot be read ({error.strerror})", needed="a checkpoint", fix="check the path"
        ) from None
    header = _HEADER.match(whole)
    if header is None:
        raise not_a_checkpoint(path)
    if int(header[1]) != _VERSION:
        raise DataError(
            got=f"{path}, a checkpoint of version {int(header[1])}",
            needed=f"version {_VERSION}, which this release reads and writes",
            fix="load it with the release that wrote it, or start anew",
        )
    payload = whole[header.end() :]
    if hashlib.sha256(payload).hexdigest().encode() != header[2]:
        raise DataError(
            got=f"{path}, which is damaged: its content does not match its checksum",
            needed="the file as it was written",
            fix="fetch it again, go back to an earlier one, or remove it to start anew",
        )
    try:
        return unpickle_plain(io.BytesIO(payload))  # the checksum is no secret, and proves nothing
    except Exception as error:  # whatever a hostile file makes of torch
        raise DataError(
            got=f"{path}, which cannot be read as tensors and plain values ({' '.join(str(error).split())[:200]})",
            needed="a file that attribguard.checkpoint.save wrote; what could run code is not loaded",
            fix="do not trust where it came from",
        ) from None


def not_a_checkpoint(path: Path) -> DataError:
    """The refusal of a file that :func:`write_checked` did not write.

    Args:
        path: the file.
    """
    return DataError(
        got=f"{path}, which is no checkpoint of a training",
        needed="a file that attribguard.checkpoint.save wrote",
        fix="name another, or remove it to start anew",
    )
