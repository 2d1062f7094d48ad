"""Quantiles of many columns of numbers in bounded memory: a sketch of values with weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SMALLEST_SKETCH", "compact", "upper_quantiles"]

# How many values a sketch may hold at least: the few of each of its levels, and enough above them to be of use.
SMALLEST_SKETCH = 512

_LEVELS = 64
_FEWEST = 2
_SHRINK = 2 / 3
_UNITS_AT_ONCE = 64


def compact(values: Tensor, weights: Tensor, limit: int, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    r"""Bring a sketch of many units down to a number of values, with a rank error that is known.

    The sketch of Karnin, Lang and Liberty 2016 ("Optimal quantile approximation in streams", Section 3). A value of
    weight w stands for w values near it in rank. Where too many have one weight, they are sorted, and of each two
    neighbours one is kept, with twice the weight; a coin for each unit says which. All units have seen equally many
    values, so one set of weights serves all of them, and every step is one operation on a matrix.

    One such step moves the rank of any number by w or not at all, up or down by a coin. By Hoeffding's inequality the
    ranks of all steps together are off by :math:`\sqrt{2 \ln(2 / \delta) \sum w^2}` or less with probability
    :math:`1 - \delta`, for every unit and any order of the values. Two sketches are merged by putting their values
    together, and their sums of :math:`w^2` add up.

    Unlike in the paper, nothing is compacted before the memory is full, which wastes none, and the smallest weights are
    kept in levels of two values, not by sampling.

    Args:
        values: (U, R), what is held of each unit, in any order.
        weights: (R,) powers of two, one for each column.
        limit: how many columns may stay, ``SMALLEST_SKETCH``, 512, or more.
        generator: of the coins, on the CPU.

    Returns:
        The values (U, R') and weights (R',) that stay, R' being ``limit`` or less, with the same sum of weights; and
        the sum of :math:`w^2` over the steps.

    Example:
        >>> values, weights, squares = compact(torch.rand(3, 2000), torch.ones(2000), 600, torch.Generator())
        >>> values.shape, weights.sum(), squares  # 1000 pairs, and then 500
        (torch.Size([3, 500]), tensor(2000.), 5.0)
    """
    levels = [values[:, weights == 2**level] for level in range(int(weights.max()).bit_length())]
    top_capacity = (limit - _FEWEST * _LEVELS) // 3
    squares = 0.0
    while sum(level.shape[1] for level in levels) > limit:
        # The heavier the values, the more of them are worth their memory. All levels at capacity stay below the limit.
        full = next(
            index
            for index, level in enumerate(levels)
            if level.shape[1] > max(_FEWEST, top_capacity * _SHRINK ** (len(levels) - 1 - index))
        )
        ordered = levels[full].sort(1).values
        even = ordered.shape[1] // 2 * 2
        pairs = ordered[:, :even].unflatten(1, (-1, 2))
        coins = torch.randint(2, (len(values), 1, 1), generator=generator).to(values.device)
        kept = pairs.gather(2, coins.expand(-1, even // 2, 1)).squeeze(2)
        levels[full] = ordered[:, even:]
        if full + 1 == len(levels):
            levels.append(kept)
        else:
            levels[full + 1] = torch.cat([levels[full + 1], kept], 1)
        squares += 4.0**full
    kept_weights = [weights.new_full((level.shape[1],), 2.0**index) for index, level in enumerate(levels)]
    return torch.cat(levels, 1), torch.cat(kept_weights), squares


def upper_quantiles(values: Tensor, weights: Tensor, above: Sequence[int]) -> Tensor:
    """The smallest value of each unit that has at most so much weight above it.

    Args:
        values: (U, R), finite.
        weights: (R,) whole numbers above 0, one for each column.
        above: K whole numbers, 0 or more and below the sum of the weights.

    Returns:
        (K, U).

    Example:
        >>> upper_quantiles(torch.tensor([[1.0, 4.0, 2.0, 3.0]]), torch.ones(4), [0, 2])
        tensor([[4.],
                [2.]])
    """
    found = []
    for part in values.split(_UNITS_AT_ONCE):
        largest, order = part.sort(1, descending=True)
        reached = weights.double()[order].cumsum(1)
        found.append(torch.cat([largest.gather(1, (reached <= k).sum(1, keepdim=True)) for k in above], 1))
    return torch.cat(found).t()
