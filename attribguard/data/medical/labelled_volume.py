"""One volume of the Medical Segmentation Decathlon and its label: opened together, cut alike."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attribguard.data.files.paths import inside_folder
from attribguard.data.medical.nifti import Axis, Shelf, Volume, open_volume
from attribguard.data.medical.reading import optional, reading
from attribguard.errors import DataError

__all__ = ["Case", "open_case", "read_description"]

_MOST_LABELS = 2**16 - 1
_DISPLACED = 0.5  # voxels by which the corners of a label may be displaced from those of its image


@dataclass(frozen=True, eq=False)
class Case:
    """A volume and its label, whose headers were checked. Planes are named by the axes right, anterior, superior.

    Attributes:
        file: the image, relative to the data set's folder.
        image: of any number of values a voxel.
        label: on the same voxels, one number each.
        axes: the voxel axes along which one goes right, anterior and superior, and the way on each.
    """

    file: str
    image: Volume
    label: Volume
    axes: tuple[Axis, ...]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).name.removesuffix(".gz").removesuffix(".nii")

    def size(self, plane: tuple[int, int, int]) -> tuple[int, ...]:
        """(H, W) of its slices.

        Args:
            plane: the axes of the slices, of the rows and of the columns.
        """
        return tuple(self.image.shape[self.axes[axis][0]] for axis in plane[1:])

    def cut(self, volume: Volume, at: int, plane: tuple[int, int, int], shelf: Shelf) -> NDArray[np.float32]:
        """One slice of the image or the label, with rows and columns against the directions of their axes.

        Args:
            volume: the image or the label.
            at: number of the slice, counted along the direction of its axis.
            plane: the axes of the slices, of the rows and of the columns.
            shelf: of volumes.

        Returns:
            (C, H, W).

        Raises:
            DataError: if the file is damaged or holds NaN or infinite values.
        """
        (across, way), (row, down), (column, right) = (self.axes[axis] for axis in plane)
        index = at if way > 0 else volume.shape[across] - 1 - at
        cut = volume.cut(shelf(volume), index, (row, -down), (column, -right))
        return np.ascontiguousarray(np.moveaxis(cut, 2, 0))

    def slices_with(self, organ: Sequence[int], labels: Mapping[int, str], axis: int) -> NDArray[np.bool_]:
        """Which slices show the organ; every label is looked at.

        Args:
            organ: numbers of the labels that count.
            labels: the names of all by their numbers.
            axis: of the slices.

        Returns:
            (n,), in the order of the slices.

        Raises:
            DataError: if the file is damaged, or holds a value that is no label.
        """
        known, relevant = (np.zeros(max(labels) + 1, bool) for _ in range(2))
        known[list(labels)], relevant[list(organ)] = True, True
        stored, (across, way) = self.label.unpack(), self.axes[axis]
        shown = np.zeros(self.label.shape[across], bool)
        plain = stored.dtype.kind in "iu" and (self.label.slope, self.label.intercept) == (1, 0)
        for z in range(stored.shape[2]):  # whatever the plane, as the file is laid out
            values = stored[:, :, z, 0] if plain else self.label.values(stored[:, :, z, 0])
            low, high = values.min(), values.max()
            numbers = values.astype(np.int64) if low >= 0 and high < len(known) else np.zeros(0, np.int64)
            odd = values[(numbers != values) | ~known[numbers]] if numbers.size else np.array([min(low, 0) or high])
            if odd.size:
                raise _bad(f"the label {odd[0]:g} in {self.label.path}", f"those of dataset.json, {dict(labels)}")
            marked = relevant[numbers]
            if across == 2:
                shown[z] = marked.any()
            else:
                shown |= marked.any(1 - across)
        return shown[::way]


def read_description(path: Path) -> tuple[dict[int, str], list[tuple[str, str]]]:
    """Read a task's ``dataset.json``.

    Args:
        path: the file.

    Returns:
        The names of the labels by their numbers, and (image, label) of each volume for training.

    Raises:
        DataError: if the file is missing or damaged, or lacks either.
    """
    with reading(path, "the dataset.json of a task, with labels and training"):
        content = json.loads(path.read_bytes())
        labels = {int(number): str(name) for number, name in content["labels"].items()}
        pairs = [(str(entry["image"]), str(entry["label"])) for entry in content["training"]]
        if not labels or min(labels) < 0 or max(labels) > _MOST_LABELS:
            raise _bad(f"{path} with the labels {labels}", f"numbers from 0 to {_MOST_LABELS}")
        return labels, pairs


def open_case(root: Path, description: Path, pair: tuple[str, str], seen: set[Path]) -> Case:
    """Open a volume and its label, and check that they belong together.

    Args:
        root: the data set's folder.
        description: the task's ``dataset.json``, beside which the files lie.
        pair: names of image and label.
        seen: files that were opened before; these two are added.

    Raises:
        DataError: if a file is missing, damaged, outside the folder or seen before, or the label has another size or
            lies elsewhere than the image.
    """
    image, label = (open_volume(_present(description.parent, name)) for name in pair)
    for volume in (image, label):
        if volume.path in seen:
            raise _bad(f"{volume.path}, which {description} names twice", "a volume of its own for each entry")
        seen.add(volume.path)
    if label.shape != (*image.shape[:3], 1):
        raise _bad(f"{label.path} of {label.shape} voxels for {image.path} of {image.shape}", "a label of that size")
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*np.subtract(image.shape[:3], 1), 1]
    moved = corners @ (np.linalg.inv(image.affine) @ label.affine).T
    if np.abs(moved - corners).max() > _DISPLACED:
        raise _bad(f"{label.path}, which lies elsewhere than {image.path}", "a label in the place of its image")
    turned = optional("nibabel.orientations").io_orientation(image.affine).astype(int)
    axes = tuple((voxel, int(turned[voxel, 1])) for voxel in np.argsort(turned[:, 0]).tolist())
    return Case(image.path.relative_to(root.resolve()).as_posix(), image, label, axes)


def _present(folder: Path, name: str) -> Path:
    path = inside_folder(folder, name)
    plain = inside_folder(folder, name.removesuffix(".gz"))
    return plain if plain.is_file() and not path.exists() else path


def _bad(got: str, needed: str) -> DataError:
    return DataError(got=got, needed=needed, fix="check the file, or fetch the task again")
