"""Roots and squares that stay finite, and what lies outside a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from attribguard.errors import ShapeError

__all__ = ["at_least_float32", "outside", "safe_sqrt"]


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision as float32, for its squares underflow; other types as they are.

    Args:
        x: any shape, floating.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def safe_sqrt(x: Tensor) -> Tensor:
    """The square root with derivatives of 0 at 0, where they are infinite and infinity times the inner zero is NaN.

    Args:
        x: any shape, 0 or more.
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)


def outside(values: Tensor, mask: Tensor) -> Tensor:
    """What a map holds outside the mask.

    Args:
        values: (N, C, H, W) or (N, H, W).
        mask: (N, 1, H, W) or (N, H, W), 1 = relevant, in [0, 1].

    Returns:
        (N, C * H * W), float32 or float64.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    channels = values.unsqueeze(1) if values.dim() == 3 else values
    relevant = mask.unsqueeze(1) if mask.dim() == 3 else mask
    n, (height, width) = len(values), channels.shape[-2:]
    if channels.dim() != 4 or relevant.shape != (n, 1, height, width):
        raise ShapeError(
            got=f"values of shape {tuple(values.shape)} and a mask of shape {tuple(mask.shape)}",
            needed="(N, C, H, W) or (N, H, W), and a mask (N, 1, H, W) or (N, H, W) of that size",
            fix="resize the mask, for instance with attribguard.masks.resize",
        )
    channels = at_least_float32(channels)
    return (channels * (1 - relevant.to(channels.dtype))).flatten(1)
