"""Hounsfield units to the grey values of a window."""

from __future__ import annotations

import math

from torch import Tensor

from attribguard.errors import RangeError

__all__ = ["ct_window"]


def ct_window(hu: Tensor, center: float, width: float) -> Tensor:
    """Show a range of Hounsfield units: 0 at its lower end and below, 1 at its upper end and above.

    Source: the DICOM standard, PS3.3 C.11.2.1.3.2 (``LINEAR_EXACT``), with an output from 0 to 1. Departure: the
    standard's older ``LINEAR`` shifts the centre by half a unit and narrows the width by one, which is made for whole
    numbers.

    Args:
        hu: any shape, in Hounsfield units; integers are converted to float32.
        center: the middle of the range, in Hounsfield units.
        width: of the range, in Hounsfield units, above 0. (40, 80) is a usual brain window.

    Returns:
        Float tensor of the same shape, in [0, 1].

    Raises:
        RangeError: if the centre is not finite, or the width not finite and above 0.

    Example:
        >>> import torch
        >>> ct_window(torch.tensor([-1000, 0, 40, 60, 3000]), center=40, width=80)
        tensor([0.0000, 0.0000, 0.5000, 0.7500, 1.0000])
    """
    if not (math.isfinite(center) and 0 < width < math.inf):
        raise RangeError(
            got=f"center={center} and width={width}",
            needed="a finite centre, and a finite width above 0",
            fix="give both in Hounsfield units",
        )
    hu = hu if hu.is_floating_point() else hu.float()
    return ((hu - center) / width + 0.5).clamp(0, 1)
