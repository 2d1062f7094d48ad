"""Percentile intervals of any figure over images, with whole groups drawn, fast enough for ten thousand images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Figure", "estimate"]

Index = NDArray[np.int64]
RESAMPLES = 999
_LEVEL = 0.95


@dataclass(frozen=True)
class Figure:
    """A figure and how sure it is.

    Attributes:
        value: of all images; ``None`` where it is not defined.
        low: the lower end of its 95 % interval, ``None`` where there is none.
        high: the upper end.
        n: how many images it rests on.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        text = f"{self.value:.3f}"
        return text if self.low is None or self.high is None else f"{text} [{self.low:.3f}, {self.high:.3f}]"


def estimate(
    statistic: Callable[[Index], float], n: int, groups: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> Figure:
    """A figure with the percentile interval of the bootstrap.

    Args:
        statistic: indices of images, some of them several times, to the figure; nan where it is not defined.
        n: how many images there are.
        groups: of each image, so that those of one patient are drawn together; every image for itself where empty.
        seed: of the draws.
        resamples: how many.

    Returns:
        The figure; without an interval for fewer than two groups, or if more than one in ten resamples has no value.
    """
    if n == 0:
        return Figure(None, None, None, 0)
    value = statistic(np.arange(n))
    if not math.isfinite(value):
        return Figure(None, None, None, n)
    units = _units(n, groups)
    if len(units) < 2:
        return Figure(value, None, None, n)
    draws, values = np.random.default_rng(seed), []
    for _ in range(resamples):
        chosen = draws.integers(len(units), size=len(units))
        values.append(statistic(np.concatenate([units[unit] for unit in chosen]) if groups else chosen))
    defined = [one for one in values if math.isfinite(one)]
    if len(defined) < 0.9 * resamples:
        return Figure(value, None, None, n)
    low, high = np.quantile(defined, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Figure(value, float(low), float(high), n)


def _units(n: int, groups: Sequence[str]) -> Sequence[Index]:
    if not groups:
        return [np.array([index]) for index in range(n)]
    _, numbers = np.unique(np.array(groups), return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
