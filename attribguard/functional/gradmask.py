"""GradMask: the size of the input gradient outside the mask."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from attribguard.errors import check_choice
from attribguard.functional.norms import outside, safe_sqrt

__all__ = ["GRADMASK_NORMS", "GradMaskNorm", "gradmask"]

GradMaskNorm = Literal["l2", "l1", "squared"]
GRADMASK_NORMS: tuple[GradMaskNorm, ...] = ("l2", "l1", "squared")


def gradmask(gradient: Tensor, mask: Tensor, norm: GradMaskNorm = "l2") -> Tensor:
    r"""Norm of the input gradient outside the mask, per sample.

    .. math::
        \mathcal{L}_\mathrm{grad} = \left\| \frac{\partial |\hat y_1 - \hat y_0|}{\partial x} \cdot (1 - m) \right\|_2

    Viviano et al., Eq. 2, after Simpson et al. The published code takes the sum of absolute values over the batch:
    ``"l1"``, times N. ``"squared"`` is the square of ``"l2"``.

    Args:
        gradient: (N, C, H, W), the gradient of a score with respect to the images.
        mask: (N, 1, H, W) or (N, H, W), 1 = relevant, in [0, 1].
        norm: ``"l2"``, ``"l1"`` or ``"squared"``, over pixels and channels.

    Returns:
        (N,), 0 or more; exactly 0 with zero gradient where nothing lies outside.

    Raises:
        RangeError: if the norm is unknown.
        ShapeError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> gradmask(torch.tensor([[[[3.0, 4.0, 7.0]]]]), torch.tensor([[[0, 0, 1]]]))
        tensor([5.])
    """
    check_choice("norm", norm, GRADMASK_NORMS)
    values = outside(gradient, mask)
    if norm == "l1":
        return values.abs().sum(1)
    squares = values.square().sum(1)
    return squares if norm == "squared" else safe_sqrt(squares)
