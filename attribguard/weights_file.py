"""Files of tensors that may have come from anywhere: nothing in them is run, and none holds more than its size."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from attribguard.plain_data import check_regular

__all__ = ["load_plain", "unpickle_plain"]

_ARCHIVE = b"PK\x03\x04"  # by which torch.load knows one


def load_plain(path: Path) -> Any:
    """Read what ``torch.save`` wrote, tensors to the CPU; whatever else it holds is refused, and no code in it run.

    Args:
        path: the file.

    Raises:
        OSError: if there is no file.
        ValueError: if it holds more than its own size.
        Exception: of any other kind, for a damaged or hostile file: whatever the unpickler stumbles over.
    """
    check_regular(path)
    with path.open("rb") as file:
        return unpickle_plain(file)


def unpickle_plain(file: IO[bytes]) -> Any:
    """As :func:`load_plain`, from a file that is open.

    Args:
        file: of ``torch.save``.

    Raises:
        ValueError: as :func:`load_plain`, like all others.
    """
    _refuse_packed(file)
    content = torch.load(file, map_location="cpu", weights_only=True)
    size = file.seek(0, os.SEEK_END)
    # Before torch 2.7 a tensor's memory is as large as the pickle says, whatever the archive holds.
    if any(tensor.untyped_storage().nbytes() > size for tensor in _tensors(content)):
        raise ValueError("a tensor of more than the file holds")
    return content


def _tensors(content: Any) -> Iterator[Tensor]:
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for part in content.values() if isinstance(content, Mapping) else content:
            yield from _tensors(part)


def _refuse_packed(file: IO[bytes]) -> None:
    """Refuse an archive that holds more than its own size; ``torch.save`` stores tensors as they are.

    Half a megabyte of zip can hold half a gigabyte, which ``torch.load`` unpacks before it looks at it. What is no
    archive, such as a file of the older form, passes.

    Args:
        file: of ``torch.save``, which is left at its beginning.

    Raises:
        ValueError: if a part is compressed, or parts lie over each other.
        zipfile.BadZipFile: if it starts as an archive and is none.
    """
    file.seek(0)
    if file.read(len(_ARCHIVE)) == _ARCHIVE:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
            raise ValueError("compressed parts, which torch.save does not write")
        if sum(part.file_size for part in parts) > file.seek(0, os.SEEK_END):
            raise ValueError("parts that lie over each other")
    file.seek(0)
