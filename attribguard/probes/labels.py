"""What an image belongs to: its class, and the group (a patient) that it shares with other images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError

__all__ = ["Labels", "as_classes", "as_groups"]

Labels = Tensor | Sequence[int] | Sequence[str]


def as_classes(classes: Tensor | Sequence[int], n: int) -> Tensor:
    """Check class indices.

    Args:
        classes: (N,) whole numbers, 0 or more.
        n: how many there must be.

    Returns:
        (N,) int64.

    Raises:
        ShapeError: if there are not N.
        TypeMismatchError: if they are no whole numbers.
        RangeError: if one is negative.

    Example:
        >>> as_classes([3, 0], 2)
        tensor([3, 0])
    """
    checked = _integers("classes", classes, n)
    if bool((checked < 0).any()):
        raise RangeError(got=f"class {int(checked.min())}", needed="0 or more", fix="leave uncertain labels out")
    return checked


def as_groups(groups: Labels, n: int) -> Tensor:
    """Give each group a number that is the same in every process and run.

    Args:
        groups: (N,) whole numbers, or N strings, of which 64 bits of a hash are taken: for a million different names
            the chance that any two agree is 3e-8. 5 and "5" are two groups.
        n: how many there must be.

    Returns:
        (N,) int64.

    Raises:
        ShapeError: if there are not N.
        TypeMismatchError: if they are neither whole numbers nor strings.

    Example:
        >>> numbers = as_groups(["patient 7", "patient 8", "patient 7"], 3)
        >>> (numbers == numbers[0]).tolist()
        [True, False, True]
    """
    listed = groups if isinstance(groups, Tensor) or not hasattr(groups, "tolist") else groups.tolist()
    if isinstance(listed, Sequence) and not isinstance(listed, str):
        listed = [_number(entry) if isinstance(entry, str) else entry for entry in listed]
    return _integers("groups", listed, n)


def _number(name: str) -> int:
    # Python's own hash differs from process to process.
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)


def _integers(name: str, labels: Any, n: int) -> Tensor:
    try:
        # An empty list would become floating.
        tensor = torch.as_tensor(labels, dtype=None if len(labels) else torch.int64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        tensor = None
    if tensor is None or tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeMismatchError(
            got=f"{name} of {type(labels).__name__ if tensor is None else tensor.dtype}",
            needed="whole numbers" + (" or strings" if name == "groups" else ""),
            fix="give one for each image",
        )
    if tensor.shape != (n,):
        raise ShapeError(got=f"{name} of shape {tuple(tensor.shape)}", needed=f"({n},)", fix="give one for each image")
    return tensor.long()
