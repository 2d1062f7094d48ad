"""One CT slice in one DICOM file: its header, held against the file, and its pixels in Hounsfield units."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attribguard.data.medical.dicom_file import check_pixel_bytes, load, numbers
from attribguard.data.medical.reading import optional, reading
from attribguard.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["HEADER", "CtSlice", "pixels", "slice_header"]

_MOST = 2**26  # pixels of a compressed slice, which cannot be held against the file's size
_SKEW = 1e-3  # how far the directions of rows and columns may be from unit length and a right angle
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51))
_SCANS = 2**6  # of a JPEG; each takes the decoder through all pixels again, and may be a hundred bytes
_DECODER = 'run: pip install "pylibjpeg[all]", or write it uncompressed'
HEADER = """
    SOPClassUID SOPInstanceUID SeriesInstanceUID PatientID Modality InstanceNumber ImagePositionPatient
    ImageOrientationPatient PixelSpacing Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation
    SamplesPerPixel PhotometricInterpretation NumberOfFrames RescaleSlope RescaleIntercept RescaleType
    ModalityLUTSequence PixelData
""".split()


@dataclass(frozen=True)
class CtSlice:
    """What the header of a slice says.

    Attributes:
        file: name of the file, relative to the folder.
        uid: SOPInstanceUID, by which a segmentation refers to the slice.
        series: SeriesInstanceUID.
        patient: PatientID; ``""`` where it was removed.
        number: InstanceNumber, if there is one.
        size: (H, W) in pixels.
        spacing: PixelSpacing in mm, from row to row and from column to column, if it is given.
        position: ImagePositionPatient in mm (left, posterior, superior): the centre of the first pixel, if given.
        orientation: ImageOrientationPatient: the directions in which the column number and the row number grow.
    """

    file: str
    uid: str
    series: str
    patient: str
    number: int | None
    size: tuple[int, int]
    spacing: tuple[float, ...] | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None


def slice_header(path: Path, file: str, dataset: Dataset) -> CtSlice:
    """What the header of a CT slice says, held against the size of the file.

    Args:
        path: the file.
        file: its name relative to the folder.
        dataset: the elements :data:`HEADER` of the file, long ones deferred.

    Raises:
        DataError: if the file is no CT slice of one frame and one grey value a pixel; has no or fewer pixels than it
            says, no rescale slope and intercept, or no decoder for its compression.
    """
    with reading(path, "a CT slice with a complete header"):
        _check(path, dataset)
        number = dataset.get("InstanceNumber")
        slice_ = CtSlice(
            file=file,
            uid=str(dataset.SOPInstanceUID),
            series=str(dataset.SeriesInstanceUID),
            patient=str(dataset.get("PatientID") or ""),
            number=None if number is None else int(number),
            size=(int(dataset.Rows), int(dataset.Columns)),
            spacing=numbers(dataset, "PixelSpacing", 2),
            position=numbers(dataset, "ImagePositionPatient", 3),
            orientation=numbers(dataset, "ImageOrientationPatient", 6),
        )
        if not slice_.uid or not slice_.series:
            raise _bad(path, "has an empty SOPInstanceUID or SeriesInstanceUID")
        if slice_.spacing and min(slice_.spacing) <= 0:
            raise _bad(path, f"has the PixelSpacing {slice_.spacing}")
        axes = np.reshape(slice_.orientation or (1, 0, 0, 0, 1, 0), (2, 3))
        if np.abs(axes @ axes.T - np.eye(2)).max() > _SKEW:
            raise _bad(path, f"has the ImageOrientationPatient {slice_.orientation}, no two directions at right angles")
        return slice_


def pixels(path: Path) -> NDArray[np.float32]:
    """Read a slice in Hounsfield units: what is stored, times the rescale slope, plus the intercept.

    ``MONOCHROME1`` is read as ``MONOCHROME2``: it says how to show the values, and not what they mean. Padding outside
    the scanner's field of view keeps its value, which may lie far below air.

    Args:
        path: the file.

    Returns:
        (H, W), in Hounsfield units.

    Raises:
        DataError: as :func:`slice_header`, and if the pixels cannot be decoded.
    """
    dataset = load(path, HEADER, defer=False)
    with reading(path, "a CT slice whose pixels can be decoded"):
        _check(path, dataset)
        if dataset.file_meta.TransferSyntaxUID in _JPEG_2000:
            _check_codestream(path, dataset)
        if dataset.file_meta.TransferSyntaxUID in _JPEG and dataset.PixelData.count(b"\xff\xda") > _SCANS:
            raise _bad(path, "has more scans than any slice needs")
        stored = dataset.pixel_array
        if stored.shape != (dataset.Rows, dataset.Columns):
            raise _bad(path, f"decodes to {stored.shape}")
        hu = stored.astype(np.float64) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        return hu.astype(np.float32)


def _check(path: Path, dataset: Dataset) -> None:
    """What both the header and the pixels need; anything missing raises AttributeError."""
    modality = dataset.get("Modality")
    if modality != "CT":
        raise _bad(path, f"has the modality {modality!r}", fix="only CT is measured in Hounsfield units: move it away")
    if "PixelData" not in dataset:
        raise _bad(path, "has no pixel data, or is cut off before them")
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.SamplesPerPixel)
    if frames != 1 or samples != 1:
        raise _bad(path, f"has {frames} frames of {samples} values a pixel", fix="write one grey slice a file")
    rows, columns, bits = int(dataset.Rows), int(dataset.Columns), int(dataset.BitsAllocated)
    if min(rows, columns) < 1 or bits not in (8, 16, 32):
        raise _bad(path, f"says {rows} x {columns} pixels of {bits} bits")
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        check_pixel_bytes(path, dataset, rows * columns * bits)
    else:
        if rows * columns > _MOST:
            raise _bad(path, f"says {rows} x {columns} pixels, compressed")
        if not optional("pydicom.pixels").get_decoder(syntax).is_available:
            raise _bad(path, f"is compressed as {syntax.name}, for which pydicom has no decoder here", fix=_DECODER)
    scale = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if None in scale or "ModalityLUTSequence" in dataset:
        raise _bad(path, "has no rescale slope and intercept, without which its values are no Hounsfield units")
    slope, intercept = map(float, scale)
    kind = dataset.get("RescaleType") or "HU"
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept) or kind not in ("HU", "US"):
        raise _bad(path, f"has the rescale slope {slope}, intercept {intercept} and type {kind!r}")


def _check_codestream(path: Path, dataset: Dataset) -> None:
    """A decoder believes the codestream, whose pixels would come out in disorder under another header."""
    stream = optional("pydicom.encaps").get_frame(dataset.PixelData, 0, number_of_frames=1)
    width, height, left, top = struct.unpack(">4I", stream[8:24])  # the SIZ segment: ISO/IEC 15444-1, A.5.1
    size, signed, bits = (height - top, width - left), stream[42] >> 7, (stream[42] & 127) + 1
    needed = (dataset.Rows, dataset.Columns), dataset.PixelRepresentation
    if (size, signed) != needed or bits > dataset.BitsAllocated:
        raise _bad(path, f"holds {size} pixels of {bits} bits, signed={signed}, where its header says otherwise")


def _bad(path: Path, why: str, fix: str = "check the file, or fetch it again") -> DataError:
    return DataError(got=f"{path}, which {why}", needed="a CT slice in a DICOM file", fix=fix)
