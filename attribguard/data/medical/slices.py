"""CT slices and the masks beside them as a data set."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from attribguard.data.drawing import check_whole
from attribguard.data.files.paths import inside_folder
from attribguard.data.files.refusals import OnError, Refusals
from attribguard.data.medical.ct_slice import CtSlice, pixels
from attribguard.data.medical.nifti import Shelf
from attribguard.data.medical.reading import check_window, fitted
from attribguard.data.medical.series import in_order, list_folder
from attribguard.data.medical.slice_index import SliceIndex
from attribguard.data.medical.slice_masks import Masks, find_masks, united
from attribguard.data.sizes import Size, as_size, check_alike
from attribguard.errors import DataError

__all__ = ["CtSlices", "read_slices"]


class CtSlices(Dataset[dict[str, Any]]):
    """CT slices that are read from their files when they are asked for; :func:`read_slices` finds them.

    Args:
        folder: of the files.
        slices: their headers, in order.
        masks: those of each slice.
        targets: a class for each slice, or None.
        size: of the items, (H, W); that of the slices with None.
        window: (center, width) in Hounsfield units; none with None.
        skipped: (file, reason) of what was left out.
        ignored: files that were not looked into.

    Attributes:
        slices: the header of each slice, in order.
        annotated: (n,) bool, whether a slice has a mask.
        targets: (n,) int64, or None if none were given.
        groups: the patient of each slice.
        files: the file of each slice.
        skipped: (file, reason) of what was left out under ``on_error="skip"``.
        ignored: files that are neither DICOM nor masks by their names.
    """

    def __init__(
        self,
        folder: Path,
        slices: Sequence[CtSlice],
        masks: Sequence[Masks],
        targets: Sequence[int] | None,
        size: tuple[int, int] | None,
        window: tuple[float, float] | None,
        skipped: Sequence[tuple[str, str]] = (),
        ignored: Sequence[str] = (),
    ) -> None:
        self.slices, self._masks, self._folder, self._shelf = list(slices), list(masks), folder, Shelf()
        self._size, self._window = size, window
        self.annotated = torch.tensor([bool(one) for one in masks])
        self.targets = None if targets is None else torch.tensor(targets)
        self.groups, self.files = [one.patient for one in slices], [one.file for one in slices]
        self.skipped, self.ignored = list(skipped), list(ignored)

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One slice and its mask, as :func:`read_slices` describes them; raises DataError if either is damaged."""
        one, masks = self.slices[index], self._masks[index]
        image = torch.from_numpy(pixels(inside_folder(self._folder, one.file)))[None]
        if tuple(image.shape[1:]) != one.size:
            raise DataError(
                got=f"{self._folder / one.file}, which changed since it was listed",
                needed="files that stay as they are",
                fix="read the folder again",
            )
        mask = united(masks, one, self._shelf) if masks else torch.ones_like(image)
        image, mask = fitted(image, mask, self._size, self._window)
        target: dict[str, Tensor] = {} if self.targets is None else {"target": self.targets[index].clone()}
        annotated = self.annotated[index].clone()
        return {"image": image, **target, "mask": mask, "annotated": annotated, "group": one.patient, "file": one.file}


def read_slices(
    folder: str | os.PathLike[str],
    *,
    targets: Mapping[str, int] | None = None,
    segments: Collection[str] | None = None,
    masks_needed: bool = False,
    size: Size = None,
    window: tuple[float, float] | None = None,
    on_error: OnError = "raise",
    cache: str | os.PathLike[str] | None = None,
) -> CtSlices:
    """Read the CT series below a folder, slice by slice, in Hounsfield units, with the masks that lie beside them.

    The headers of all files are read now, pixels when an item is asked for. Series follow each other by their first
    file; the slices of a series are sorted along their normal (from the feet to the head in axial ones of the usual
    orientation), or by InstanceNumber where they are not parallel or do not all say where they lie. Needs the extra
    ``medical``: ``pip install "attribguard[medical]"``.

    A mask is

    - a DICOM segmentation (BINARY or FRACTIONAL) anywhere in the folder, whose frames name their slices. A slice of
      its series without a frame has an empty mask: it was looked at, and nothing was found;
    - a PNG file named as the slice (``0007.png`` beside ``0007.dcm``), 0 and one other value;
    - a NIfTI volume (``.nii``, ``.nii.gz``) on the grid of the slices, named as the slice, or as the folder of the
      slices and in or beside it (``case1.nii.gz`` for ``case1/*.dcm``); what is not 0 is relevant.

    A slice with several has their union. One without has a mask of ones and is not ``annotated``.

    Items are dicts: ``image`` (1, H, W) float32 in Hounsfield units, or in [0, 1] with a window; ``mask`` (1, H, W)
    float32, 1 = relevant; ``annotated`` () bool; ``group``, the PatientID (``""`` where it was removed); ``file``,
    relative to the folder; and ``target`` () int64 if targets are given.

    Args:
        folder: searched with all its folders. Links out of it are errors; links to folders within it are not followed.
        targets: the class, 0 or more, of each slice: by its file relative to the folder, or else by its PatientID.
        segments: labels of the segments that count in DICOM segmentations; all by default.
        masks_needed: whether a slice without a mask is an error.
        size: to which images (bilinearly) and masks (by area, at least half) are brought, (H, W) or one number for
            squares; by default that of the slices, which must then agree.
        window: (center, width) in Hounsfield units, see :func:`attribguard.data.ct_window`.
        on_error: ``"raise"``: the first bad file is an error, now if its header shows it, or else when its item is
            asked for; ``"skip"``: every file is read through now, and bad slices are left out and listed, with
            reasons, in ``skipped``, as are bad masks of no single slice.
        cache: a folder where the headers of good slices are kept, as one JSON file, so that the next call reads only
            those of files whose size or time of last change is another; by default nothing is kept.

    Raises:
        DataError: if pydicom or nibabel is needed and missing; if a file is damaged, no CT, without pixels or rescale
            values, compressed in a way that cannot be decoded here, or a second of the same SOPInstanceUID; if a mask
            has no slice, or another size or place; if a target is missing; if slices differ in size
            and none was given; or if no slice is left.
        RangeError: if ``window`` or ``on_error`` is out of range.

    Example:
        >>> import shutil, tempfile
        >>> from pydicom.data import get_testdata_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = shutil.copy(get_testdata_file("CT_small.dcm"), folder)
        ...     slices = read_slices(folder, window=(40, 400))
        ...     item = slices[0]
        >>> item["image"].shape, item["group"], bool(item["annotated"])
        (torch.Size([1, 128, 128]), '1CT1', False)
    """
    check_window(window)
    size, folder, refusals = as_size(size), Path(folder), Refusals(on_error)
    with SliceIndex(folder, cache) as headers:
        listing = list_folder(folder, headers, segments, refusals)
    slices = in_order(listing.slices.values(), folder, refusals)
    masks = find_masks(folder, slices, listing.masks, listing.segmentations, refusals)
    every = CtSlices(folder, slices, masks, None, size, window)
    kept: list[tuple[CtSlice, Masks, int]] = []
    for index, (one, beside) in enumerate(zip(slices, masks, strict=True)):
        with refusals.about(one.file):
            if masks_needed and not beside:
                raise _lacking(folder / one.file, "a mask")
            target = -1 if targets is None else _target(targets, one, folder)
            if on_error == "skip":
                every[index]  # what is damaged must show before the slices are counted
            kept.append((one, beside, target))
    if not kept:
        left = f"; {len(refusals.skipped)} files were skipped, first {refusals.skipped[0]}" if refusals.skipped else ""
        raise DataError(
            got=f"{folder} without a CT slice that can be read{left}",
            needed="a folder of DICOM files",
            fix="check the path",
        )
    if size is None:
        check_alike("slices", [(one.file, one.size) for one, _, _ in kept])
    classes = None if targets is None else [target for _, _, target in kept]
    slices, masks = [one for one, _, _ in kept], [beside for _, beside, _ in kept]
    return CtSlices(folder, slices, masks, classes, size, window, refusals.skipped, listing.ignored)


def _target(targets: Mapping[str, int], one: CtSlice, folder: Path) -> int:
    key = one.file if one.file in targets else one.patient
    if key not in targets:
        raise _lacking(folder / one.file, f"a target, for its file or its patient {one.patient!r}")
    check_whole(f"targets[{key!r}]", targets[key], 0)
    return targets[key]


def _lacking(path: Path, what: str) -> DataError:
    return DataError(
        got=f"{path} without {what}", needed=f"{what}, for each slice", fix="add it, or move the slice away"
    )
