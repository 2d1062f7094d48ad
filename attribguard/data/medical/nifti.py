"""NIfTI volumes of which single planes are read, and whose headers are not believed before the file bears them out."""

from __future__ import annotations

import gzip
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from attribguard.data.medical.reading import optional, reading
from attribguard.errors import DataError

__all__ = ["Axis", "Shelf", "Volume", "open_volume"]

Axis = tuple[int, int]  # a voxel axis, and 1 to run along it or -1 to run against it
_LENGTHS = {348: "Nifti1Header", 540: "Nifti2Header"}  # of the header, which starts with it
_PACKED = 1032  # the most that gzip can pack into one byte
_MOST = 2**32  # bytes of a volume, unpacked
_CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class Volume:
    """A NIfTI file whose header was checked. Its voxels are still in the file.

    Attributes:
        path: of the file.
        shape: (X, Y, Z, C) in voxels; C counts the values of a voxel, such as the sequences of an MR.
        affine: (4, 4): from voxel numbers to mm (right, anterior, superior).
        dtype: of the stored values.
        offset: of the first voxel in the unpacked file, in bytes.
        slope: by which stored values are multiplied.
        intercept: which is then added.
    """

    path: Path
    shape: tuple[int, int, int, int]
    affine: NDArray[np.float64]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(3,): the size of a voxel in mm."""
        return cast("NDArray[np.float64]", np.linalg.norm(self.affine[:3, :3], axis=0))

    def unpack(self) -> NDArray[Any]:
        """Read or map the stored values.

        Returns:
            (X, Y, Z, C): mapped from a plain file, of which a plane then reads only its own part; in memory from a
            packed one, which can only be read from its start.

        Raises:
            DataError: if the file is damaged, or holds fewer or more bytes than its header says.
        """
        size = self.offset + math.prod(self.shape) * self.dtype.itemsize
        with reading(self.path, "a NIfTI file"):
            if self.path.suffix != ".gz":
                _check_length(self.path, self.path.stat().st_size, size)
                return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, "F")
            payload = bytearray()
            with _unpacked(self.path) as file:
                # One byte more than promised would show; memory grows with what the file does hold.
                while chunk := file.read(min(_CHUNK, size + 1 - len(payload))):
                    payload += chunk
            _check_length(self.path, len(payload), size)
            return np.ndarray(self.shape, self.dtype, payload, self.offset, order="F")

    def read_through(self) -> None:
        """Read every value once, to learn whether the file can be read.

        Raises:
            DataError: if it is damaged, or holds NaN or infinite values.
        """
        stored = self.unpack()
        for z in range(self.shape[2]):
            self.values(stored[:, :, z])

    def values(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Scale stored values as the header says.

        Args:
            stored: any part of the volume.

        Returns:
            Its values, in the same shape.

        Raises:
            DataError: if one of them is NaN or infinite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            values = (stored.astype(np.float64) * self.slope + self.intercept).astype(np.float32)
        if not np.isfinite(values).all():
            raise _bad(self.path, "holds NaN or infinite values")
        return values

    def cut(self, stored: NDArray[Any], index: int, row: Axis, column: Axis) -> NDArray[np.float32]:
        """One plane of the volume, turned as asked.

        Args:
            stored: what :meth:`unpack` returned.
            index: of the plane, along the axis that is neither of the two.
            row: the axis along which the row number grows.
            column: the axis along which the column number grows.

        Returns:
            (H, W, C).

        Raises:
            DataError: if one of its values is NaN or infinite.
        """
        place = [slice(None), slice(None), slice(None)]
        place[3 - row[0] - column[0]] = slice(index, index + 1)  # take() would first copy the whole volume
        plane = stored[tuple(place)].squeeze(3 - row[0] - column[0])
        plane = plane if row[0] < column[0] else plane.swapaxes(0, 1)
        return self.values(plane[:: row[1], :: column[1]])


class Shelf:
    """Keeps the volumes that were unpacked last, since the slices of one volume mostly follow each other.

    Args:
        keep: how many.
    """

    def __init__(self, keep: int = 2) -> None:
        self._keep, self._kept = keep, OrderedDict[Path, NDArray[Any]]()

    def __call__(self, volume: Volume) -> NDArray[Any]:
        """The stored values of a volume, (X, Y, Z, C), unpacked unless they still are."""
        if volume.path not in self._kept:
            while len(self._kept) >= self._keep:  # before unpacking: two large volumes more would count
                self._kept.popitem(last=False)
            self._kept[volume.path] = volume.unpack()
        self._kept.move_to_end(volume.path)
        return self._kept[volume.path]

    def __getstate__(self) -> dict[str, Any]:
        return {"_keep": self._keep, "_kept": OrderedDict()}  # workers unpack their own


def open_volume(path: Path) -> Volume:
    """Read and check the header of a NIfTI file, ``.nii`` or ``.nii.gz``.

    A plain file must be exactly as long as its header says; one packed with gzip must be able to hold as much, which
    :meth:`Volume.unpack` then bears out.

    Args:
        path: the file.

    Raises:
        DataError: if it is missing, no NIfTI file (version 1 or 2) of real numbers on 2 to 4 axes, does not say how it
            lies in space, or its length belies its header.
    """
    nibabel = optional("nibabel")
    with reading(path, "a NIfTI file"):
        if not path.is_file():
            raise _bad(path, "does not exist or is no file")
        with _unpacked(path) as file:
            start = file.read(max(_LENGTHS))
        length = next((n for n in _LENGTHS if start[:4] in (n.to_bytes(4, "little"), n.to_bytes(4, "big"))), 0)
        if not length or len(start) < length:
            raise _bad(path, "does not start as a NIfTI file, or is cut off")
        header = getattr(nibabel, _LENGTHS[length])(start[:length])
        axes = int(header["dim"][0])
        lengths = [int(side) for side in header["dim"][1 : axes + 1]]
        if not header["magic"].item().startswith(b"n+") or not 2 <= axes <= 7 or min(lengths) < 1:
            raise _bad(path, f"has the magic {header['magic'].item()!r} and {axes} axes of lengths {lengths}")
        if math.prod(lengths[4:]) > 1:
            raise _bad(path, f"has more than four axes: {lengths}")
        x, y, z, channels = [*lengths, 1, 1][:4]
        dtype = header.get_data_dtype()
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise _bad(path, f"holds values of type {dtype}")
        slope, intercept = header.get_slope_inter()
        offset = header.get_data_offset()
        volume = Volume(
            path, (x, y, z, channels), _affine(path, header), dtype, offset,
            1.0 if slope is None else slope, 0.0 if intercept is None else intercept,
        )  # fmt: skip
        size, held = offset + math.prod(volume.shape) * dtype.itemsize, path.stat().st_size
        if path.suffix != ".gz":
            _check_length(path, held, size)
        if offset <= length or size > min(_MOST, held * _PACKED):
            raise _bad(path, f"says {lengths} values of type {dtype} from byte {offset} on, in a file of {held} bytes")
        return volume


def _affine(path: Path, header: Any) -> NDArray[np.float64]:
    affine = np.asarray(header.get_best_affine(), np.float64)
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        raise _bad(path, "does not say how it lies in space (sform_code and qform_code are 0)")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise _bad(path, f"has the affine {affine.tolist()}")
    return affine


def _unpacked(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _check_length(path: Path, held: int, size: int) -> None:
    if held != size:
        held_words = f"{held} bytes{' or more' if held > size else ''}"
        raise _bad(path, f"holds {held_words} where its header says {size}")


def _bad(path: Path, why: str) -> DataError:
    return DataError(got=f"{path}, which {why}", needed="a NIfTI file", fix="check the file, or fetch it again")
