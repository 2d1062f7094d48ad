"""DICOM segmentations: frames of 1 bit or 8 bits a pixel, each of which names the slice that it was drawn on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attribguard.data.medical.ct_slice import CtSlice
from attribguard.data.medical.dicom_file import check_pixel_bytes, load, numbers
from attribguard.data.medical.reading import reading
from attribguard.errors import DataError

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["SEGMENTATIONS", "Frame", "Segmentation", "read_segmentation"]

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the second holds label maps
_SYNTAXES = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # native, little endian
_BITS = {"BINARY": 1, "FRACTIONAL": 8}
_NEAR = 0.1  # mm by which a frame may be displaced from its slice
_TURN = 1e-2  # by which their directions may differ
_HEADER = """
    SOPClassUID SegmentationType Rows Columns BitsAllocated SamplesPerPixel NumberOfFrames MaximumFractionalValue
    SegmentSequence ReferencedSeriesSequence SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelData
""".split()


@dataclass(frozen=True)
class Frame:
    """One frame of a segmentation.

    Attributes:
        number: its place in the pixel data, from 0.
        uid: SOPInstanceUID of the slice that it was drawn on.
        position: ImagePositionPatient of its first pixel, if given.
        orientation: ImageOrientationPatient, if given.
    """

    number: int
    uid: str
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None


@dataclass(frozen=True)
class Segmentation:
    """A DICOM segmentation whose header was checked; its pixels are still in the file.

    Attributes:
        path: of the file.
        size: (H, W) of every frame.
        bits: a pixel, 1 or 8.
        most: the value of a pixel that is relevant for certain.
        start: of the pixels in the file, in bytes.
        frames: those of the chosen segments.
        series: SeriesInstanceUIDs of the series that it says it was drawn on.
    """

    path: Path
    size: tuple[int, int]
    bits: int
    most: int
    start: int
    frames: tuple[Frame, ...]
    series: frozenset[str]

    def mask(self, of: CtSlice) -> NDArray[np.float32]:
        """What is marked in one slice: the union of its frames, nothing where it has none.

        Args:
            of: the slice.

        Returns:
            (H, W), in [0, 1].

        Raises:
            DataError: if the frames have another size than the slice, lie elsewhere, or cannot be read.
        """
        if self.size != of.size:
            raise _bad(self.path, f"has frames of {self.size} for {of.file} of {of.size} pixels")
        union = np.zeros(of.size, np.float32)
        for frame in self.frames:
            if frame.uid == of.uid:
                near = _close(frame.position, of.position, _NEAR) and _close(frame.orientation, of.orientation, _TURN)
                if not near:
                    raise _bad(self.path, f"has frame {frame.number + 1} at another place than {of.file}, its source")
                np.maximum(union, self._frame(frame.number), out=union)
        return union

    def _frame(self, number: int) -> NDArray[np.float32]:
        count = self.size[0] * self.size[1]
        first = number * count * self.bits  # frames of single bits follow each other without a gap
        with reading(self.path, "a DICOM segmentation"), self.path.open("rb") as file:
            file.seek(self.start + first // 8)
            held = np.frombuffer(file.read(-(-(first % 8 + count * self.bits) // 8)), np.uint8)
            if self.bits == 1:
                held = np.unpackbits(held, bitorder="little")[first % 8 : first % 8 + count]
            if held.max(initial=0) > self.most:
                raise _bad(self.path, f"has values above {self.most}, its highest by its header")
            return (held.reshape(self.size) / self.most).astype(np.float32)


def read_segmentation(path: Path, segments: Collection[str] | None) -> Segmentation:
    """Read the header of a DICOM segmentation, and hold it against the length of its pixels.

    Source: the DICOM standard, PS3.3 A.51 and C.8.20.

    Args:
        path: the file.
        segments: labels (SegmentLabel) of the segments to read; all by default.

    Raises:
        DataError: if the file is no DICOM file or damaged; is compressed, a label map, or of another kind; has fewer
            or more pixels than it says, or none of the segments; or a frame does not name exactly one slice.
    """
    dataset = load(path, _HEADER, defer=True)
    with reading(path, "a DICOM segmentation with a complete header"):
        kind, syntax = dataset.get("SegmentationType"), dataset.file_meta.TransferSyntaxUID
        if kind not in _BITS or syntax not in _SYNTAXES or dataset.BitsAllocated != _BITS[kind]:
            raise _bad(path, f"is of the type {kind!r} in {dataset.get('BitsAllocated')} bits, as {syntax.name}")
        rows, columns, groups = int(dataset.Rows), int(dataset.Columns), dataset.PerFrameFunctionalGroupsSequence
        if min(rows, columns) < 1 or dataset.SamplesPerPixel != 1 or len(groups) != int(dataset.NumberOfFrames):
            raise _bad(
                path, f"says {rows} x {columns} pixels in {dataset.NumberOfFrames} frames, and lists {len(groups)}"
            )
        pixels = check_pixel_bytes(path, dataset, rows * columns * len(groups) * _BITS[kind])
        labels = {int(item.SegmentNumber): str(item.SegmentLabel) for item in dataset.SegmentSequence}
        chosen = {number for number, label in labels.items() if segments is None or label in segments}
        if not chosen:
            raise _bad(path, f"has the segments {sorted(labels.values())} and none of {sorted(segments or ())}")
        most = int(dataset.MaximumFractionalValue) if kind == "FRACTIONAL" else 1
        if most < 1:
            raise _bad(path, f"has the MaximumFractionalValue {most}")
        shared = dataset.get("SharedFunctionalGroupsSequence") or [{}]
        frames = []
        for number, group in enumerate(groups):
            segment = _inner(path, number, group, shared[0], "SegmentIdentificationSequence").ReferencedSegmentNumber
            if segment not in labels:
                raise _bad(path, f"has frame {number + 1} of segment {segment}, which it does not describe")
            if segment in chosen:
                frames.append(_frame(path, number, group, shared[0]))
        series = frozenset(str(item.SeriesInstanceUID) for item in dataset.get("ReferencedSeriesSequence") or ())
        return Segmentation(
            path, (rows, columns), _BITS[kind], most, pixels.value_tell, tuple(frames), series
        )  # fmt: skip


def _frame(path: Path, number: int, group: Dataset, shared: Dataset) -> Frame:
    derivation = _inner(path, number, group, shared, "DerivationImageSequence")
    sources = {str(item.ReferencedSOPInstanceUID) for item in derivation.SourceImageSequence}
    if len(sources) != 1:
        raise _bad(path, f"has frame {number + 1} drawn on {len(sources)} slices")
    position, orientation = (
        numbers(places[0], keyword, count) if (places := group.get(name) or shared.get(name)) else None
        for name, keyword, count in (
            ("PlanePositionSequence", "ImagePositionPatient", 3),
            ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        )
    )
    return Frame(number, sources.pop(), position, orientation)


def _inner(path: Path, number: int, group: Dataset, shared: Dataset, name: str) -> Dataset:
    """The one item of a functional group, which stands with the frame or is shared by all."""
    items = group.get(name) or shared.get(name)
    if not items:
        raise _bad(path, f"has frame {number + 1} without {name}")
    item: Dataset = items[0]
    return item


def _close(a: tuple[float, ...] | None, b: tuple[float, ...] | None, limit: float) -> bool:
    """Whether two places or directions agree, as far as both are known."""
    return a is None or b is None or bool(np.abs(np.subtract(a, b)).max() <= limit)


def _bad(path: Path, why: str) -> DataError:
    return DataError(
        got=f"{path}, which {why}",
        needed="a DICOM segmentation, BINARY or FRACTIONAL and not compressed, drawn on these slices",
        fix="check the file, or export it again",
    )
