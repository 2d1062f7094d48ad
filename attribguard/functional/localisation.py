"""How much of a heat map lies where it should: soft and thresholded overlap, the pointing game, the energy inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.functional.localisation_checks import check_measurable, check_thresholds, check_tolerance

__all__ = ["energy_inside", "iobb", "ior", "pointing_game", "soft_iobb", "soft_ior"]


def soft_iobb(attribution: Tensor, region: Tensor) -> Tensor:
    r"""How much of the region the map covers: :math:`\sum_{p \in R} a_p \, / \, |R|`, as recall does.

    Li et al., Section 4.2: the intersection over the bounding box without a threshold, for maps in [0, 1] (see
    :func:`attribguard.functional.normalize_attribution`: which normalisation it is decides the sign of published
    comparisons). The box is the annotated one. Wang et al. 2017 (ChestX-ray8) use the same name for the overlap over
    the *detected* box, which is nearer to :func:`soft_ior`.

    Args:
        attribution: (N, H, W) floating, finite, 0 or more.
        region: (N, H, W) in [0, 1] or bool; inside where 0.5 or more.

    Returns:
        (N,), in [0, 1] for maps in [0, 1]; nan where the region is empty, or the map flat (one value everywhere, up
        to 1e-5 of it).

    Raises:
        ShapeError: if the shapes are not equal and (N, H, W).
        TypeMismatchError: if the attribution is no floating-point tensor, or the region no real one.
        RangeError: if the attribution is negative or not finite somewhere, or the region leaves [0, 1].

    Example:
        >>> soft_iobb(torch.tensor([[[1.0, 0.5, 0.0]]]), torch.tensor([[[1, 1, 0]]]))
        tensor([0.7500])
    """
    a, inside, defined = check_measurable(attribution, region, signed=False)
    return _ratio(a * inside, inside, defined)


def soft_ior(attribution: Tensor, region: Tensor) -> Tensor:
    r"""How much of the map lies in the region: :math:`\sum_{p \in R} a_p \, / \sum_p a_p`, as precision does.

    Li et al., Section 4.2: the intersection over the detected region, without a threshold.

    Args:
        attribution: as in :func:`soft_iobb`.
        region: as in :func:`soft_iobb`.

    Returns:
        (N,), in [0, 1]; nan where the region is empty or the map flat.

    Raises:
        AttribGuardError: as :func:`soft_iobb`.

    Example:
        >>> soft_ior(torch.tensor([[[1.0, 0.5, 0.5]]]), torch.tensor([[[1, 1, 0]]]))
        tensor([0.7500])
    """
    a, inside, defined = check_measurable(attribution, region, signed=False)
    return _ratio(a * inside, a, defined)


def iobb(attribution: Tensor, region: Tensor, thresholds: Sequence[float]) -> Tensor:
    """The share of the region in which the map reaches a threshold (Li et al., Section 4.2, before it is made soft).

    Args:
        attribution: (N, H, W) floating, finite, normalised as wanted.
        region: as in :func:`soft_iobb`.
        thresholds: T finite numbers; a pixel counts where the map is at the threshold or above.

    Returns:
        (N, T), in [0, 1]; nan where the region is empty or the map flat.

    Raises:
        AttribGuardError: as :func:`soft_iobb`, but for the sign.
        RangeError: if there is no threshold, or one is not finite.

    Example:
        >>> iobb(torch.tensor([[[1.0, 0.5, 0.0]]]), torch.tensor([[[1, 1, 0]]]), [0.4, 0.6])
        tensor([[1.0000, 0.5000]])
    """
    a, inside, defined = check_measurable(attribution, region)
    return torch.stack([_ratio((a >= t) * inside, inside, defined) for t in check_thresholds(thresholds)], 1)


def ior(attribution: Tensor, region: Tensor, thresholds: Sequence[float]) -> Tensor:
    """The share of the pixels at or above a threshold that lies in the region (Li et al., Section 4.2).

    Args:
        attribution: as in :func:`iobb`.
        region: as in :func:`soft_iobb`.
        thresholds: as in :func:`iobb`.

    Returns:
        (N, T), in [0, 1]; nan where the region is empty, the map flat, or no pixel reaches the threshold.

    Raises:
        AttribGuardError: as :func:`iobb`.

    Example:
        >>> ior(torch.tensor([[[1.0, 0.5, 0.5]]]), torch.tensor([[[1, 0, 0]]]), [0.5, 0.6])
        tensor([[0.3333, 1.0000]])
    """
    a, inside, defined = check_measurable(attribution, region)
    return torch.stack([_ratio((a >= t) * inside, (a >= t).to(a), defined) for t in check_thresholds(thresholds)], 1)


def pointing_game(attribution: Tensor, region: Tensor, tolerance: int = 0) -> Tensor:
    """Whether the map's maximum lies in the region (Zhang et al. 2018, Excitation Backprop).

    Of several equal maxima each counts its share, where implementations commonly take the first: the result does not
    depend on the reading order.

    Args:
        attribution: (N, H, W) floating, finite, any sign.
        region: as in :func:`soft_iobb`.
        tolerance: in pixels, 0 or more: a maximum that is *less* than this far from a pixel of the region is a hit as
            well. The paper's figures have 15, on images of about 500 x 375.

    Returns:
        (N,), 0 or 1, or between them for several maxima; nan where the region is empty or the map flat.

    Raises:
        AttribGuardError: as :func:`soft_iobb`, but for the sign.
        RangeError: if the tolerance is no whole number, 0 or more.

    Example:
        >>> pointing_game(torch.tensor([[[0.2, 0.9, 0.1]]]), torch.tensor([[[0, 0, 1]]]))
        tensor([0.])
        >>> pointing_game(torch.tensor([[[0.2, 0.9, 0.1]]]), torch.tensor([[[0, 0, 1]]]), tolerance=2)
        tensor([1.])
    """
    check_tolerance(tolerance)
    a, inside, defined = check_measurable(attribution, region)
    top = (a == a.amax((1, 2), keepdim=True)).to(a)
    if tolerance > 1:
        offset = torch.arange(1 - tolerance, tolerance, device=a.device)
        disc = (offset[:, None].square() + offset.square() < tolerance**2).to(a)
        inside = (F.conv2d(inside[:, None], disc[None, None], padding=tolerance - 1)[:, 0] > 0.5).to(a)
    return _ratio(top * inside, top, defined)


def energy_inside(attribution: Tensor, region: Tensor) -> Tensor:
    r"""The share of the positive attribution in the region: :math:`\sum_{p \in R} a_p^+ \, / \sum_p a_p^+`.

    The energy-based pointing game (Wang et al. 2020, Score-CAM). It does not depend on the map's scale, and is
    :func:`soft_ior` for maps of 0 or more.

    Args:
        attribution: (N, H, W) floating, finite, any sign; negative values count as 0.
        region: as in :func:`soft_iobb`.

    Returns:
        (N,), in [0, 1]; nan where the region is empty, the map flat, or nothing in it positive.

    Raises:
        AttribGuardError: as :func:`soft_iobb`, but for the sign.

    Example:
        >>> energy_inside(torch.tensor([[[3.0, -5.0, 1.0]]]), torch.tensor([[[1, 1, 0]]]))
        tensor([0.7500])
    """
    a, inside, defined = check_measurable(attribution, region)
    positive = a.clamp(min=0)
    return _ratio(positive * inside, positive, defined)


def _ratio(part: Tensor, whole: Tensor, defined: Tensor) -> Tensor:
    """Sum over sum, (N,); nan where it is not defined, as 0 / 0 is."""
    return torch.where(defined, part.sum((1, 2)) / whole.sum((1, 2)), torch.nan)
