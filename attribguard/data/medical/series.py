"""Which files of a folder are CT slices, segmentations and other masks, and in which order the slices lie."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from attribguard.data.files.paths import inside_folder
from attribguard.data.files.picture_index import list_files
from attribguard.data.files.refusals import Refusals
from attribguard.data.medical.ct_slice import HEADER, CtSlice, slice_header
from attribguard.data.medical.dicom_file import has_dicom_start, load
from attribguard.data.medical.dicom_seg import SEGMENTATIONS, Segmentation, read_segmentation
from attribguard.data.medical.reading import reading
from attribguard.data.medical.slice_index import SliceIndex
from attribguard.errors import DataError

__all__ = ["Listing", "in_order", "list_folder"]

_MASKS = (".png", ".nii", ".nii.gz")
# Names without an ending, and those that end in digits as a UID does, are usual for DICOM.
_DICOM = re.compile(r"\.(dcm|dicom|ima|\d+)$|^[^.]+$", re.IGNORECASE)
_NO_SLICES = ("DICOMDIR", "LICENSE", "README")
_PARALLEL = 1e-3  # by which the directions of parallel slices may differ


@dataclass
class Listing:
    """What a folder holds. Files are named relative to it.

    Attributes:
        slices: by SOPInstanceUID.
        segmentations: DICOM segmentations, with their files.
        masks: pictures and NIfTI volumes.
        ignored: the rest.
    """

    slices: dict[str, CtSlice] = field(default_factory=dict)
    segmentations: list[tuple[str, Segmentation]] = field(default_factory=list)
    masks: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def list_folder(folder: Path, index: SliceIndex, segments: Collection[str] | None, refusals: Refusals) -> Listing:
    """Read the headers of all DICOM files below a folder.

    Args:
        folder: where to look. Links to folders are not followed, and names that begin with a dot do not count.
        index: of the folder, for the headers.
        segments: labels of the segments to read; all by default.
        refusals: meets the errors of bad files.

    Raises:
        DataError: as ``refusals`` has it.
    """
    listing = Listing()
    with reading(folder, "a folder that can be listed"):
        files = list(list_files(folder))
    for file in files:
        with refusals.about(file):
            path = inside_folder(folder, file)
            if path.is_dir():
                listing.ignored.append(file)
            elif not path.is_file():
                raise DataError(got=f"{folder / file}, which is no file", needed="files", fix="mend or move it")
            elif file.lower().endswith(_MASKS):
                listing.masks.append(file)
            elif one := index.known(file, path):
                _add(listing, path, one)
            elif not _is_dicom(path):
                listing.ignored.append(file)
            else:
                dataset = load(path, HEADER, defer=True)
                with reading(path, "a DICOM file"):
                    segmentation = dataset.get("SOPClassUID") in SEGMENTATIONS
                if segmentation:
                    listing.segmentations.append((file, read_segmentation(path, segments)))
                else:
                    one = slice_header(path, file, dataset)
                    index.keep(path, one)
                    _add(listing, path, one)
    return listing


def _add(listing: Listing, path: Path, one: CtSlice) -> None:
    if one.uid in listing.slices:
        raise DataError(
            got=f"{path} with the SOPInstanceUID of {listing.slices[one.uid].file}",
            needed="a UID of its own for each slice",
            fix="remove the copy",
        )
    listing.slices[one.uid] = one


def in_order(slices: Iterable[CtSlice], folder: Path, refusals: Refusals) -> list[CtSlice]:
    """Sort slices: series by their first file, and within a series along the normal of its slices.

    For axial slices of the usual orientation that is from the feet to the head. A series whose slices are not
    parallel, or do not all say where they lie, is sorted by InstanceNumber.

    Args:
        slices: of any number of series, sorted by file.
        folder: of the files, for errors.
        refusals: meets the errors of slices that have neither.

    Raises:
        DataError: as ``refusals`` has it.
    """
    of_series = defaultdict[str, list[CtSlice]](list)
    for one in slices:
        of_series[one.series].append(one)
    return [one for series in of_series.values() for one in _in_order(series, folder, refusals)]


def _in_order(series: list[CtSlice], folder: Path, refusals: Refusals) -> list[CtSlice]:
    positions = [one.position for one in series if one.position]
    orientations = np.array([one.orientation for one in series if one.orientation])
    if len(positions) == len(orientations) == len(series) and np.ptp(orientations, axis=0).max() < _PARALLEL:
        heights = np.array(positions) @ np.cross(orientations[0, :3], orientations[0, 3:])
    else:
        heights = np.zeros(len(series))
        for one in series:
            with refusals.about(one.file):
                if one.number is None:
                    raise DataError(
                        got=f"{folder / one.file}, in a series that no positions put in order",
                        needed="ImagePositionPatient and ImageOrientationPatient of parallel slices, or InstanceNumber",
                        fix="add InstanceNumber",
                    )
        series = [one for one in series if one.number is not None]
    keyed = zip(heights, series, strict=False)
    return [one for _, one in sorted(keyed, key=lambda pair: (pair[0], pair[1].number or 0, pair[1].file))]


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM; one that its name gives out as DICOM must be."""
    if path.name in _NO_SLICES:
        return False
    found = has_dicom_start(path)
    if not found and _DICOM.search(path.name):
        raise DataError(
            got=f"{path}, which does not start as a DICOM file",
            needed="DICOM files under names without an ending, or with that of DICOM or of a UID",
            fix="fetch it again, or move it away",
        )
    return found
