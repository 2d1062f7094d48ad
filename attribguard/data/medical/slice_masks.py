"""The masks that lie beside CT slices: which files belong to which slice, and how they are laid over it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from attribguard.data.files.paths import inside_folder
from attribguard.data.files.picture_file import read_mask
from attribguard.data.files.refusals import Refusals
from attribguard.data.medical.ct_slice import CtSlice
from attribguard.data.medical.dicom_seg import Segmentation
from attribguard.data.medical.nifti import Axis, Shelf, Volume, open_volume
from attribguard.errors import DataError

__all__ = ["Masks", "find_masks", "mask_name", "united"]

_ENDINGS = (".nii.gz", ".nii", ".png", ".dcm", ".dicom", ".ima")
_NEAR = 0.1  # voxels by which a slice may be displaced from the planes of a volume
_FAR = 2**31  # voxels; a volume that is farther away has no number for the slice

Source = Path | Volume | Segmentation
Masks = tuple[Source, ...]


def mask_name(file: str) -> str:
    """What a mask and its slice have in common: the path within the folder, without the ending of the format.

    Args:
        file: relative to the folder.

    Returns:
        The same without ``.dcm``, ``.png``, ``.nii.gz`` and so on; dots within a UID stay.

    Example:
        >>> mask_name("case1/0003.nii.gz"), mask_name("case1/1.2.840.7")
        ('case1/0003', 'case1/1.2.840.7')
    """
    ending = next((ending for ending in _ENDINGS if file.lower().endswith(ending)), "")
    return file[: len(file) - len(ending)]


def find_masks(
    folder: Path,
    slices: Sequence[CtSlice],
    files: Sequence[str],
    segmentations: Sequence[tuple[str, Segmentation]],
    refusals: Refusals,
) -> list[Masks]:
    """Which masks belong to each slice.

    Args:
        folder: of all files.
        slices: of the folder.
        files: names of pictures and NIfTI volumes, relative to the folder.
        segmentations: with their names.
        refusals: meets the errors of masks without a slice, and of damaged volumes.

    Returns:
        A tuple of masks for each slice, empty for one without.

    Raises:
        DataError: as ``refusals`` has it.
    """
    named, placed, drawn, uids = (defaultdict[str, list[int]](list) for _ in range(4))
    for index, one in enumerate(slices):
        named[mask_name(one.file)].append(index)
        placed[PurePosixPath(one.file).parent.as_posix()].append(index)
        drawn[one.series].append(index)
        uids[one.uid].append(index)
    found: list[list[Source]] = [[] for _ in slices]
    for file in files:
        name = PurePosixPath(mask_name(file))
        of = named.get(str(name), [])
        if not file.lower().endswith(".png"):
            home = name.parent.name or folder.resolve().name
            of = of or placed.get(str(name), []) or (placed.get(str(name.parent), []) if name.name == home else [])
        with refusals.about(file):
            if not of:
                raise DataError(
                    got=f"the mask {folder / file} without a slice",
                    needed=f"a DICOM file {name.name} beside it, or for a volume the slices in a folder of its name",
                    fix="name the mask like its slice, or move it away",
                )
            path = inside_folder(folder, file)
            source = path if file.lower().endswith(".png") else open_volume(path)
            for index in of:
                found[index].append(source)
    for file, segmentation in segmentations:
        sources = {frame.uid for frame in segmentation.frames}
        missing = sorted(sources - uids.keys())
        series = {slices[index].series for uid in sources - set(missing) for index in uids[uid]} | segmentation.series
        # A slice of the series without a frame was looked at, and nothing was found in it.
        of = [index for name in sorted(series) for index in drawn.get(name, [])]
        for index in of:
            found[index].append(segmentation)
        with refusals.about(file):
            if missing or not of:
                which = (
                    f"{len(missing)} slices that are not in the folder, such as {missing[0]}" if missing else "no slice"
                )
                raise DataError(
                    got=f"{segmentation.path}, drawn on {which}",
                    needed="the slices of a segmentation in the same folder",
                    fix="add the slices, or move the segmentation away",
                )
    return list(map(tuple, found))


def united(masks: Masks, of: CtSlice, shelf: Shelf) -> Tensor:
    """The union of the masks of a slice.

    Args:
        masks: at least one.
        of: the slice that they belong to.
        shelf: of volumes.

    Returns:
        (1, H, W) float32, in [0, 1].

    Raises:
        DataError: if one cannot be read, has another size or lies elsewhere.
    """
    union = torch.zeros(1, *of.size)
    for source in masks:
        if isinstance(source, Segmentation):
            mask = torch.from_numpy(source.mask(of))[None]
        elif isinstance(source, Volume):
            mask = _laid_over(source, of, shelf)
        else:
            mask = read_mask(source)
        if mask.shape != union.shape:
            path = source if isinstance(source, Path) else source.path
            raise DataError(
                got=f"the mask {path} of {tuple(mask.shape[1:])} pixels for {of.file} of {of.size}",
                needed="a mask of the size of its slice",
                fix="draw the mask on the slice itself",
            )
        union = torch.maximum(union, mask)
    return union


def _laid_over(volume: Volume, of: CtSlice, shelf: Shelf) -> Tensor:
    """(1, H, W): where the plane of a volume that lies on the slice is not 0."""
    if of.position is None or of.orientation is None or of.spacing is None or volume.shape[3] != 1:
        raise _elsewhere(volume, of, "has several values a voxel, or the slice does not say where it lies")
    # NIfTI counts to the right and to the front, DICOM to the left and to the back.
    to_voxels = np.linalg.inv(volume.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    row_step, column_step = of.spacing
    across, down = np.reshape(of.orientation, (2, 3))
    origin = (to_voxels @ [*of.position, 1])[:3]
    steps = np.stack([to_voxels[:3, :3] @ down * row_step, to_voxels[:3, :3] @ across * column_step])
    if not max(np.abs(origin).max(), np.abs(steps).max()) < _FAR:
        raise _elsewhere(volume, of, "lies elsewhere")
    near, turns = np.rint(origin).astype(int), np.rint(steps).astype(int)
    far = np.array([[0, 0], [of.size[0] - 1, 0], [0, of.size[1] - 1]])
    off = np.abs((origin + far @ steps) - (near + far @ turns)).max()
    (row, column), plane = np.abs(turns).argmax(1), 3 - np.abs(turns).argmax(1).sum()
    flat = np.abs(turns).sum(1).tolist() == [1, 1] and row != column
    if not flat or off > _NEAR or (volume.shape[row], volume.shape[column]) != of.size:
        raise _elsewhere(volume, of, f"has {volume.shape[:3]} voxels of another size or place, turned otherwise")
    corner = [
        0 if step > 0 else side - 1 for step, side in ((turns[0, row], of.size[0]), (turns[1, column], of.size[1]))
    ]
    if [near[row], near[column]] != corner or not 0 <= near[plane] < volume.shape[plane]:
        raise _elsewhere(volume, of, "lies elsewhere")
    axes: tuple[Axis, Axis] = (int(row), int(turns[0, row])), (int(column), int(turns[1, column]))
    values = volume.cut(shelf(volume), int(near[plane]), *axes)
    return torch.from_numpy(values[None, :, :, 0] != 0).float()


def _elsewhere(volume: Volume, of: CtSlice, why: str) -> DataError:
    return DataError(
        got=f"the mask {volume.path}, which {why}, for {of.file} of {of.size} pixels",
        needed="a volume on the grid of its slices",
        fix="resample the mask to the slices",
    )
