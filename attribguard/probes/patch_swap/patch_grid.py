"""Where the patches of a scan lie in the image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from attribguard.errors import RangeError, TypeMismatchError
from attribguard.functional.checks import is_whole
from attribguard.masks import from_irrelevant

__all__ = ["PatchGrid", "check_whole"]


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number within its range.

    Args:
        name: of the argument.
        value: what was given.
        least: the lowest that is allowed.
        most: the highest, if there is one.

    Raises:
        TypeMismatchError: if it is not an integer.
        RangeError: if it is out of range.
    """
    if not is_whole(value):
        raise TypeMismatchError(got=f"{name}={value!r}", needed="a whole number", fix=f"give {name} as an integer")
    if not is_whole(value, least, most):
        needed = f"{least} or more" if most is None else f"{least} to {most}"
        raise RangeError(got=f"{name}={value}", needed=needed, fix=f"give another {name}")


@dataclass(frozen=True)
class PatchGrid:
    """Square patches of an image, numbered row by row from 0.

    The first one lies in the upper left corner. Where patch and stride do not fill the image, pixels at the lower and
    right border are in no patch; ``left_out`` counts them.

    Args:
        image: (H, W) in pixels.
        patch: side of a patch in pixels, up to the image's shorter side.
        stride: pixels from one patch to the next, 1 to ``patch``; smaller ones overlap.

    Raises:
        TypeMismatchError: if a number is not whole.
        RangeError: if the patch is larger than the image, or the stride larger than the patch, which would leave gaps.

    Example:
        >>> grid = PatchGrid((28, 30), 4, 4)
        >>> len(grid), grid.shape, grid.corner(42), grid.left_out
        (49, (7, 7), (24, 0), (0, 2))
    """

    image: tuple[int, int]
    patch: int
    stride: int

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_whole("patch_size", self.patch, 1)
        check_whole("stride", self.stride, 1)
        if self.patch > min(self.image):
            raise RangeError(
                got=f"patch_size={self.patch} for images of {self.image[0]} x {self.image[1]} pixels",
                needed=f"{min(self.image)} or less",
                fix="take smaller patches",
            )
        if self.stride > self.patch:
            raise RangeError(
                got=f"stride={self.stride} for patches of {self.patch} pixels",
                needed="a stride no larger than the patch, or pixels between them would never be scanned",
                fix="leave the stride out, or take larger patches",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        height, width = self.image
        return (height - self.patch) // self.stride + 1, (width - self.patch) // self.stride + 1

    @property
    def left_out(self) -> tuple[int, int]:
        """Rows of pixels at the lower border, and columns at the right one, that lie in no patch."""
        bottom, right = (side - self.patch - (count - 1) * self.stride for side, count in self._sides())
        return bottom, right

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    def corner(self, position: int) -> tuple[int, int]:
        """The upper left pixel of a patch: row and column.

        Args:
            position: its number, from 0.
        """
        row, column = divmod(position, self.shape[1])
        return row * self.stride, column * self.stride

    def inside(self, positions: Tensor) -> Tensor:
        """Which pixels some patches cover.

        Args:
            positions: (B,) integers.

        Returns:
            (B, 1, H, W) bool, one patch each.
        """
        top, left = (place * self.stride for place in (positions // self.shape[1], positions % self.shape[1]))
        row, column = (self._covers(side, first) for side, first in zip(self.image, (top, left), strict=True))
        return (row[:, :, None] & column[:, None, :])[:, None]

    def mask_without(self, positions: Collection[int]) -> Tensor:
        """A mask in which these patches, if any, are irrelevant: (1, 1, H, W) float32, 0 in them and 1 elsewhere."""
        covered = self.inside(torch.tensor(sorted(positions), dtype=torch.long))
        return from_irrelevant(covered.any(0, keepdim=True))

    def _covers(self, side: int, first: Tensor) -> Tensor:
        """(B, side): which of a side's pixels patches cover that begin here."""
        pixel = torch.arange(side, device=first.device)
        return (pixel >= first[:, None]) & (pixel < first[:, None] + self.patch)

    def _sides(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (self.image[0], self.shape[0]), (self.image[1], self.shape[1])
