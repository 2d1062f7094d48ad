"""What the phantoms share: splits, patients, random streams, and a shortcut whose strength can be set."""

from __future__ import annotations

import copy
import operator
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from attribguard.data.drawing import check_whole
from attribguard.data.phantoms.canvas import mask_tensor
from attribguard.errors import DataError

__all__ = ["Phantom", "ShortcutPhantom", "annotation"]

_SMALLEST, _LARGEST = 32, 1024  # pixels; below, shapes melt into their neighbours
_MOST = 2**32  # slices; an index is one 32-bit word of the random stream's key


class Phantom(Dataset[dict[str, Any]], ABC):
    """A drawn data set: slice ``index`` depends on ``(split, index, size, seed)`` alone, whatever was drawn before.

    Four slices in a row belong to one patient. Splits share no patient. Noise is drawn last, so that another size shows
    the same anatomy.

    Args:
        split: one of ``SPLITS``.
        n: number of slices, 1 or more; a larger set starts with the same slices.
        size: height and width in pixels, 32 to 1024.
        seed: 0 or more; the same seed draws the same slices on every machine.

    Raises:
        DataError: if ``split`` is unknown, or a number is not whole or out of range.
    """

    SPLITS: ClassVar[tuple[str, ...]] = ("train", "valid", "test")
    SLICES: ClassVar[int] = 4

    def __init__(self, split: str, n: int, size: int = 64, seed: int = 0) -> None:
        if split not in self.SPLITS:
            raise DataError(got=f"split={split!r}", needed=f"one of {self.SPLITS}", fix="choose one of them")
        for name, value, least, most in (("n", n, 1, _MOST), ("size", size, _SMALLEST, _LARGEST)):
            check_whole(name, value, least, most)
        check_whole("seed", seed, 0)
        self.split, self.n, self.size, self.seed = split, int(n), int(size), int(seed)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The item of one slice; a negative index counts from the end."""
        number = operator.index(index)
        number += self.n if number < 0 else 0
        if not 0 <= number < self.n:
            raise IndexError(f"slice {index} of {self.n}")  # which ends a loop over the data set
        patient, place = divmod(number, self.SLICES)
        item = self._draw(self._stream(0, patient), self._stream(1, number), place)
        return {**item, "group": f"{self.split}-{patient:05}"}

    def _stream(self, level: int, number: int) -> np.random.Generator:
        # The seed comes last: NumPy cuts a long one into words, of which none may stand where another's number does.
        key = [self.SPLITS.index(self.split), level, number, self.seed]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    @abstractmethod
    def _draw(self, patient: np.random.Generator, rng: np.random.Generator, place: int) -> dict[str, Any]:
        """The item but for its group, from the stream of its patient, its own, and its place among the patient's."""

    def _two_of_four(self, patient: np.random.Generator, place: int) -> int:
        """A class for each slice of a patient, in random order, two of them 1 and two of them 0."""
        return int(patient.permutation(self.SLICES)[place] % 2)


class ShortcutPhantom(Phantom):
    """A phantom with a shortcut that agrees with the label as often as it is told to.

    Args:
        split: one of ``SPLITS``.
        n: number of slices, 1 or more.
        size: height and width in pixels, 32 to 1024.
        seed: 0 or more.
        strength: share of the slices whose shortcut agrees with the label, 0 to 1; 0.5 says nothing of it.

    Raises:
        DataError: as `Phantom`, or if ``strength`` is no number from 0 to 1.
    """

    def __init__(self, split: str, n: int, size: int = 64, seed: int = 0, *, strength: float) -> None:
        super().__init__(split, n, size, seed)
        self.strength = _check_strength(strength)

    def shortcut(self, strength: float) -> Self:
        """The same slices with a shortcut of another strength; all else in them is equal, pixel by pixel.

        Args:
            strength: as in the constructor.

        Returns:
            Another data set; this one stays as it is.

        Raises:
            DataError: if ``strength`` is no number from 0 to 1.
        """
        other = copy.copy(self)
        other.strength = _check_strength(strength)
        return other

    def _shortcut_says(self, target: int, rng: np.random.Generator) -> int:
        """The class that a slice's shortcut speaks for; always one number from the stream."""
        return target if rng.random() < self._agreement() else 1 - target

    def _agreement(self) -> float:
        """Share of this split's slices whose shortcut agrees with the label."""
        return self.strength


def annotation(inside: NDArray[np.bool_], readable: bool = True) -> dict[str, Tensor]:
    """Mask, its flag and the segmentation of what a slice shows.

    A slice without the thing has no region to point at: its segmentation is 0 everywhere, but as a mask that would
    call the whole slice irrelevant.

    Args:
        inside: (size, size), True on the thing; nowhere if there is none.
        readable: whether anybody has annotated the slice.

    Returns:
        ``mask`` (1, size, size) float32, ``annotated`` () bool and ``segmentation`` (size, size) int64: 1 on the
        thing, 0 elsewhere, -100 everywhere where nobody has annotated.
    """
    annotated = readable and bool(inside.any())
    return {
        "mask": mask_tensor(inside if annotated else np.ones_like(inside)),
        "annotated": torch.tensor(annotated),
        "segmentation": torch.from_numpy(np.where(readable, inside, -100).astype(np.int64)),
    }


def _check_strength(strength: float) -> float:
    number = isinstance(strength, int | float | np.integer | np.floating) and not isinstance(strength, bool)
    if not number or not 0 <= strength <= 1:
        raise DataError(got=f"strength={strength!r}", needed="a number from 0 to 1", fix="give the share that agrees")
    return float(strength)
