"""DICOM files, parsed without believing the lengths that they state."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribguard.data.medical.reading import optional, reading
from attribguard.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["check_pixel_bytes", "has_dicom_start", "load", "numbers"]

_START = slice(128, 132)
_DEFLATED = "1.2.840.10008.1.2.1.99"
_DEFER = 4096  # bytes; longer values are not read with the header
_FAR = 1e9  # mm; no scanner reaches as far, and places can be reckoned with up to there
_FIX = "check the file, or fetch it again"


def has_dicom_start(path: Path) -> bool:
    """Whether a file starts as DICOM files do.

    Args:
        path: a file.

    Raises:
        DataError: if it cannot be opened.
    """
    with reading(path, "a file that can be opened"), path.open("rb") as file:
        return file.read(_START.stop)[_START] == b"DICM"


def load(path: Path, keywords: Sequence[str], *, defer: bool) -> Dataset:
    """Parse a DICOM file without believing the lengths that it states.

    The file is mapped into memory, where nothing can be read, nor set aside, beyond its end. Files that are deflated
    as a whole are refused: their true size shows only once they are unpacked.

    Args:
        path: the file.
        keywords: of the elements to keep.
        defer: whether to leave out the values of long elements, such as the pixels; their lengths are kept.

    Raises:
        DataError: if the file is none of DICOM, damaged or deflated.
    """
    pydicom = optional("pydicom")
    with (
        reading(path, "a DICOM file"),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content[_START] != b"DICM":
            raise _bad(path, "does not start as a DICOM file")
        content.seek(_START.stop)
        meta = optional("pydicom.filereader").read_dataset(
            content, False, True, stop_when=lambda tag, vr, length: tag.group != 2
        )
        if meta.TransferSyntaxUID == _DEFLATED:
            raise _bad(path, "is deflated as a whole", fix="write it again without the deflated transfer syntax")
        content.seek(0)
        dataset: Dataset = pydicom.dcmread(content, _DEFER if defer else None, specific_tags=list(keywords))
        return dataset


def numbers(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """The values of an element as numbers of millimetres or less; None where it is missing or empty.

    Args:
        dataset: where to look.
        keyword: of the element.
        count: how many values it must have.

    Raises:
        ValueError: if it has another number of values, or one that is not finite or beyond 10**9.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        return None
    found = tuple(map(float, value))
    if len(found) != count or not all(abs(one) <= _FAR for one in found):  # which NaN is not
        raise ValueError(f"{keyword} {value}")
    return found


def check_pixel_bytes(path: Path, dataset: Dataset, bits: int) -> Any:
    """Hold the length of native (not compressed) pixels against what the header says of them.

    Args:
        path: of the file, for the error.
        dataset: as loaded from it.
        bits: of all pixels.

    Returns:
        The raw element of the pixels.

    Raises:
        DataError: if there are no pixels, or fewer or more bytes than are needed, which are padded to an even number.
    """
    element: Any = dataset.get_item("PixelData", keep_deferred=True)
    if element is None:
        raise _bad(path, "has no pixel data, or is cut off before them")
    needed = -(-bits // 8)
    held = element.length if element.value is None else len(element.value)
    if held not in (needed, needed + needed % 2):
        raise _bad(path, f"holds {held} bytes of pixels where its header says {needed}")
    return element


def _bad(path: Path, why: str, fix: str = _FIX) -> DataError:
    return DataError(got=f"{path}, which {why}", needed="a complete DICOM file", fix=fix)
