"""A batch of a guarded step, once everything about it has been checked."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Batch"]


class Batch(NamedTuple):
    """A checked batch.

    Attributes:
        x: (N, C, H, W) images.
        target: what the criterion gets; (N,) class indices by default.
        mask: (N, 1, H, W) float, 1 = relevant. All ones where there is no annotation.
        annotated: (N,) bool: whose mask counts.
        segmentation: (N, H, W) class indices, or ``None``.
        segmented: (N,) bool: whose segmentation counts.
    """

    x: Tensor
    target: Any
    mask: Tensor
    annotated: Tensor
    segmentation: Tensor | None
    segmented: Tensor
