"""The demo's images: drawn from a seed, or read from the paper's files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attribguard.data import Crosses
from attribguard.errors import DataError

__all__ = ["Split", "Splits", "load_splits"]

_FILES = ("distractor1.npz", "distractor2.npz", "distractor3.npz")
_SMALLEST = 16  # pixels; the deepest maps then have 2 x 2 values, so that BatchNorm can take a batch of one image


class Split(NamedTuple):
    """A whole split as tensors.

    Attributes:
        images: (N, 1, H, W) float32, 0 or 1.
        targets: (N,) int64, 0 = two crosses, 1 = one cross.
        masks: (N, 1, H, W) float32, 1 = relevant.
    """

    images: Tensor
    targets: Tensor
    masks: Tensor


class Splits(NamedTuple):
    """Training, validation and test split; in the last two the distractor stands on the other side."""

    train: Split
    valid: Split
    test: Split


def load_splits(data: Path | None, sizes: tuple[int, int, int], seed: int) -> Splits:
    """Draw the crosses, or read the paper's files.

    Of ``distractor1.npz`` as many training images as asked for are drawn at random; ``distractor2.npz`` and
    ``distractor3.npz`` are mirrored, as in the paper, and used whole.

    Args:
        data: the folder of the files, or ``None`` to draw.
        sizes: numbers of training, validation and test images; of files, only the first counts.
        seed: of the draw, 0 or more.

    Returns:
        The three splits.

    Raises:
        DataError: if a file is missing or unreadable, the images are not square, smaller than 16 pixels or of different
            sizes, or a split lacks a class.
    """
    if data is None:
        train, valid, test = sizes
        return Splits(
            _tensors(Crosses("train", train, seed=seed)),
            _tensors(Crosses("valid", valid, seed=seed)),
            _tensors(Crosses("test", test, seed=seed)),
        )
    parts: list[Split] = []
    for name in _FILES:
        part = _tensors(Crosses.from_npz(data / name, invert=name != _FILES[0]))
        _check(part, parts[0] if parts else part, data / name)
        parts.append(part)
    # A draw and not the first: the authors' files hold one class after the other.
    chosen = torch.randperm(len(parts[0].targets), generator=torch.Generator().manual_seed(seed))[: sizes[0]]
    parts[0] = Split(*(tensor[chosen] for tensor in parts[0]))
    return Splits(*parts)


def _tensors(crosses: Crosses) -> Split:
    return Split(crosses.images, crosses.targets, crosses.masks)


def _check(part: Split, first: Split, path: Path) -> None:
    height, width = part.images.shape[2:]
    if height != width or height < _SMALLEST or part.images.shape[2:] != first.images.shape[2:]:
        raise DataError(
            got=f"images of {height} x {width} pixels in {path}",
            needed=f"square images of {_SMALLEST} pixels or more, of one size in all files",
            fix="crop or pad them",
        )
    if len(part.targets.unique()) < 2:
        raise DataError(got=f"images of one class in {path}", needed="both classes", fix="add images of the other")
