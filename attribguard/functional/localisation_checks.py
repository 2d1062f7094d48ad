"""What the measures of localisation take: maps with regions, thresholds, a tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.functional.attribution_maps import check_attribution, is_flat
from attribguard.functional.checks import is_whole

__all__ = ["check_measurable", "check_thresholds", "check_tolerance"]


def check_measurable(attribution: Tensor, region: Tensor, *, signed: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Refuse maps and regions that do not go together.

    Args:
        attribution: (N, H, W) floating, finite.
        region: (N, H, W) in [0, 1] or bool; inside where 0.5 or more.
        signed: whether negative values are allowed.

    Returns:
        The map, at least float32; the region as 0 and 1 in the map's type; (N,) whether there is anything to measure:
        neither an empty region nor a flat map.

    Raises:
        AttribGuardError: as :func:`attribguard.functional.soft_iobb`.
    """
    a = check_attribution(attribution)
    if not isinstance(region, Tensor) or region.is_complex():
        kind = region.dtype if isinstance(region, Tensor) else type(region).__name__
        raise TypeMismatchError(got=f"a region of {kind}", needed="a tensor, bool or in [0, 1]", fix="make a mask")
    if region.shape != a.shape:
        raise ShapeError(
            got=f"a region of shape {tuple(region.shape)} for an attribution of shape {tuple(a.shape)}",
            needed="the same shape",
            fix="bring both to the image's size",
        )
    # Written so that NaN fails it.
    if not bool(((region >= 0) & (region <= 1)).all()):
        raise RangeError(
            got="a region with values outside [0, 1]", needed="1 = inside, no NaN", fix="divide 0 and 255 by 255"
        )
    if not signed and bool((a < 0).any()):
        raise RangeError(
            got=f"an attribution with the value {a.min().item():.3g}",
            needed="0 or more: a share of a signed sum is none",
            fix='normalise it: "max" drops what is negative, "minmax" shifts it',
        )
    inside = region >= 0.5
    return a, inside.to(a), inside.flatten(1).any(1) & ~is_flat(a)


def check_tolerance(tolerance: int) -> int:
    """Refuse a tolerance that is no whole number of pixels, 0 or more.

    Args:
        tolerance: in pixels.

    Returns:
        The same.

    Raises:
        RangeError: if it is none.
    """
    if not is_whole(tolerance, 0):
        raise RangeError(
            got=f"tolerance={tolerance!r}", needed="a whole number of pixels, 0 or more", fix="the original is 15"
        )
    return tolerance


def check_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """Refuse an empty list of thresholds, and what is no finite number.

    Args:
        thresholds: one number or more.

    Returns:
        The same.

    Raises:
        RangeError: if there is none, or one is not finite.

    Example:
        >>> check_thresholds([0.25, 0.5])
        (0.25, 0.5)
    """
    values = tuple(float(t) for t in thresholds) if isinstance(thresholds, Iterable) else ()
    if not values or not all(map(math.isfinite, values)):
        raise RangeError(got=f"thresholds={thresholds!r}", needed="finite numbers, one or more", fix="try (0.25, 0.5)")
    return values
