"""What paired times say: ratios with intervals, bars, and how a cost grows."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """A ratio of two contestants, and its 95 % interval."""

    median: float
    low: float
    high: float


class Exponent(NamedTuple):
    """The slope of log time over log size, and its standard error; nan with two sizes, which fit any line."""

    value: float
    error: float


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """An interval for the median that holds for any distribution: the k-th value from below and from above.

    The median lies outside it where fewer than k of the values fall on one side, which is the chance of so many heads
    of a fair coin; k is the largest for which both chances together leave the confidence. Fewer than six values cannot
    say 95 %, and give an infinite interval.
    """
    ordered, n = sorted(values), len(values)
    k, outside = 0, 0.0
    while True:
        outside += 2 * math.comb(n, k) / 2**n
        if outside > 1 - confidence:
            break
        k += 1
    return (ordered[k - 1], ordered[n - k]) if k else (-math.inf, math.inf)


def paired_ratio(of: Sequence[float], over: Sequence[float]) -> Ratio:
    """The median of the ratios round by round, so that a slow moment of the machine hits both sides of each."""
    ratios = [a / b for a, b in zip(of, over, strict=True)]
    return Ratio(statistics.median(ratios), *median_interval(ratios))


def verdict(ratio: Ratio, most: float | None = None, least: float | None = None) -> str:
    """``"met"``, ``"missed"`` where the whole interval is on the wrong side of the bar, otherwise ``"open"``."""
    if most is not None:
        if ratio.median <= most:
            return "met"
        return "missed" if ratio.low > most else "open"
    if least is not None:
        if ratio.median >= least:
            return "met"
        return "missed" if ratio.high < least else "open"
    return ""


def fitted_exponent(sizes: Sequence[float], costs: Sequence[float]) -> Exponent:
    """The least-squares slope of log cost over log size."""
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    slope, intercept = statistics.linear_regression(x, y)
    if len(x) < 3:
        return Exponent(slope, math.nan)
    rest = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    middle = statistics.fmean(x)
    return Exponent(slope, math.sqrt(rest / (len(x) - 2) / sum((a - middle) ** 2 for a in x)))
