"""Heat maps as they are measured: checked, and brought to [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError, check_choice
from attribguard.functional.cam import CAM_NORMALIZATIONS, CamNormalization
from attribguard.functional.norms import at_least_float32

__all__ = ["check_attribution", "is_flat", "normalize_attribution"]

# Enlarging a constant map leaves differences of up to 3e-6 of its value, which "minmax" would blow up to [0, 1].
_FLAT = 1e-5


def check_attribution(attribution: Tensor) -> Tensor:
    """Refuse what is no batch of heat maps.

    Args:
        attribution: (N, H, W) floating, finite.

    Returns:
        The same, at least float32.

    Raises:
        TypeMismatchError: if it is no floating-point tensor.
        ShapeError: if it is not (N, H, W) with at least one pixel.
        RangeError: if it is not finite somewhere.
    """
    if not isinstance(attribution, Tensor) or not attribution.is_floating_point():
        kind = attribution.dtype if isinstance(attribution, Tensor) else type(attribution).__name__
        raise TypeMismatchError(
            got=f"an attribution of {kind}", needed="a floating-point tensor", fix="use torch.as_tensor(...).float()"
        )
    if attribution.dim() != 3 or 0 in attribution.shape[1:]:
        raise ShapeError(
            got=f"an attribution of shape {tuple(attribution.shape)}",
            needed="(N, H, W)",
            fix="sum over the channels, or use attribution[:, 0]",
        )
    finite = attribution.isfinite().flatten(1).all(1)
    if not bool(finite.all()):
        raise RangeError(
            got=f"an attribution that is nan or infinite in row {int((~finite).nonzero()[0])}",
            needed="finite values",
            fix="look for the overflow where it was computed, or leave the row out",
        )
    return at_least_float32(attribution)


def is_flat(attribution: Tensor) -> Tensor:
    """Which maps have one value everywhere, up to 1e-5 of it, and so say nothing about a place.

    Args:
        attribution: (N, H, W).

    Returns:
        (N,) bool.

    Example:
        >>> is_flat(torch.tensor([[[0.3, 0.3]], [[0.3, 0.4]]]))
        tensor([ True, False])
    """
    a = attribution
    low, high = a.amin((1, 2)), a.amax((1, 2))
    return high - low <= _FLAT * torch.maximum(low.abs(), high.abs())


def normalize_attribution(attribution: Tensor, normalize: CamNormalization) -> Tensor:
    """Bring each map to [0, 1] for a measurement.

    Unlike :func:`attribguard.functional.normalize_map`, which has to stay smooth in training, it adds nothing to the
    divisor, so that maps of a small scale are not damped, and ``"max"`` drops negative values first.

    Args:
        attribution: (N, H, W) floating, finite.
        normalize: ``"minmax"`` stretches from the smallest to the largest value, as Li et al. do, so that negative
            evidence becomes 0 and no evidence something above it; ``"max"`` sets negative values to 0 and divides by
            the largest, so that no evidence stays 0; ``"none"`` leaves the map as it is.

    Returns:
        (N, H, W), at least float32, in [0, 1] but for ``"none"``; zeros for a map that is flat under ``"minmax"`` (one
        value everywhere, up to 1e-5 of it) or has nothing positive under ``"max"``.

    Raises:
        RangeError: if the mode is unknown, or the attribution is not finite.
        ShapeError: if the attribution is not (N, H, W).
        TypeMismatchError: if it is no floating-point tensor.

    Example:
        >>> cam = torch.tensor([[[-1.0, 0.0, 3.0]]])
        >>> normalize_attribution(cam, "minmax"), normalize_attribution(cam, "max")
        (tensor([[[0.0000, 0.2500, 1.0000]]]), tensor([[[0., 0., 1.]]]))
    """
    check_choice("normalize", normalize, CAM_NORMALIZATIONS)
    a = check_attribution(attribution)
    if normalize == "none":
        return a
    if normalize == "max":
        a = a.clamp(min=0)
        return torch.where(a > 0, a / a.amax((1, 2), keepdim=True), 0)
    low, high = a.amin((1, 2), keepdim=True), a.amax((1, 2), keepdim=True)
    return torch.where(is_flat(a)[:, None, None], 0, (a - low) / (high - low))
