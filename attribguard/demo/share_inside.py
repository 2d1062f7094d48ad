"""How much of a heat map lies inside a region."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["share_inside"]


def share_inside(maps: Tensor, region: Tensor) -> Tensor:
    """Share of each map's sum that lies inside a region.

    Args:
        maps: (N, H, W), 0 or more.
        region: (N, H, W), 1 inside and 0 outside.

    Returns:
        (N,), in [0, 1]; 0 for a map that is 0 everywhere, which looks at nothing.

    Example:
        >>> share_inside(torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]]))
        tensor([0.7500])
    """
    inside, outside = ((maps * part).flatten(1).sum(1) for part in (region, 1 - region))
    whole = inside + outside
    return torch.where(whole > 0, inside / whole, 0)
