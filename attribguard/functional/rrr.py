"""Right for the right reasons: squared attributions outside the mask."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from attribguard.errors import check_choice
from attribguard.functional.norms import outside

__all__ = ["PIXELS", "Pixels", "gradcam_rrr", "rrr"]

Pixels = Literal["sum", "mean"]
PIXELS: tuple[Pixels, ...] = ("sum", "mean")


def rrr(gradient: Tensor, mask: Tensor, pixels: Pixels = "sum") -> Tensor:
    r"""Squared input gradient outside the mask, per sample.

    .. math::
        \mathcal{L}_\mathrm{RRR} = \sum_{c, p} \Big( (1 - m_p) \, \frac{\partial}{\partial x_{cp}}
        \sum_k \log \hat p_k \Big)^2

    Ross et al., whose :math:`A` is 1 where the model must not look: ``1 - mask``. Their code sums over the batch too;
    the guard takes the mean.

    Args:
        gradient: (N, C, H, W), the gradient of a score with respect to the images.
        mask: (N, 1, H, W) or (N, H, W), 1 = relevant, in [0, 1].
        pixels: ``"sum"``, as in the equation, or ``"mean"`` over pixels and channels, which frees the weight from the
            image's size.

    Returns:
        (N,), 0 or more.

    Raises:
        RangeError: if ``pixels`` is neither.
        ShapeError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> rrr(torch.tensor([[[[3.0, 4.0, 7.0]]]]), torch.tensor([[[0, 0, 1]]]))
        tensor([25.])
    """
    check_choice("pixels", pixels, PIXELS)
    squares = outside(gradient, mask).square()
    return squares.sum(1) if pixels == "sum" else squares.mean(1)


def gradcam_rrr(cam: Tensor, mask: Tensor) -> Tensor:
    r"""Squared heat map outside the mask, per sample.

    .. math::
        L_E = \sum_p \big( (1 - m_p) \cdot \mathrm{norm}(\mathrm{GradCAM}(x))_p \big)^2

    Hagos et al., Eq. 2, whose :math:`M` marks the spurious region: ``1 - mask``.

    Args:
        cam: (N, h, w), normalised as wanted.
        mask: (N, 1, h, w) or (N, h, w), 1 = relevant, in [0, 1], at the map's size; see
            :func:`attribguard.masks.resize`.

    Returns:
        (N,), 0 or more.

    Raises:
        ShapeError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> gradcam_rrr(torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[0.0, 1.0]]]))
        tensor([0.2500])
    """
    return outside(cam, mask).square().sum(1)
