"""The few values of many maps that lie above a bound."""

from __future__ import annotations

import torch
from torch import Tensor

from attribguard.functional.true_cells import true_cells

__all__ = ["values_above"]


def values_above(maps: Tensor, floor: Tensor) -> Tensor:
    """Collect the values of each unit that are larger than its floor.

    All maps are compared once; what follows grows with the number of values that are found.

    Args:
        maps: (N, U, h, w) finite.
        floor: (U,).

    Returns:
        (R, U), in no order; R is the largest number that any unit has, and units with fewer are filled up with minus
        infinity.

    Example:
        >>> values_above(torch.tensor([[[[1.0, 4.0]], [[5.0, 6.0]]]]), torch.tensor([2.0, 4.0]))
        tensor([[4., 5.],
                [-inf, 6.]])
    """
    units, cells = maps.shape[1], maps.shape[2:].numel()
    found = true_cells(maps > floor[:, None, None])
    unit, order = (found // cells % units).sort(stable=True)
    counts = unit.bincount(minlength=units)
    place = torch.arange(len(unit), device=maps.device) - (counts.cumsum(0) - counts)[unit]
    table = maps.new_full((int(counts.max()), units), -torch.inf)
    table[place, unit] = maps.flatten()[found[order]]
    return table
