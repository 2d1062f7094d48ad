"""How sure a mean is: bootstrap intervals, by image or by patient."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import DegenerateDataWarning, bootstrap

from attribguard.errors import RangeError
from attribguard.functional.checks import check_number, is_whole

__all__ = ["Resampling", "Units", "mean_interval"]

Floats = NDArray[np.float64]

# Numbers drawn at once: 8 MB of indices.
_BATCH = 1_000_000


@dataclass(frozen=True)
class Resampling:
    """How an interval is drawn.

    Attributes:
        interval: the confidence level, above 0 and below 1.
        n_resamples: how many resamples, 2 or more.
        seed: of the draws, 0 or more; every call starts from it.

    Raises:
        RangeError: if one is outside its range.
        TypeMismatchError: if the level is no number.

    Example:
        >>> Resampling(interval=0.9).n_resamples
        9999
    """

    interval: float = 0.95
    n_resamples: int = 9999
    seed: int = 0

    def __post_init__(self) -> None:
        check_number("interval", self.interval, "above 0 and below 1", lambda level: 0 < level < 1)
        for name, lowest in (("n_resamples", 2), ("seed", 0)):
            value = getattr(self, name)
            if not is_whole(value, lowest):
                raise RangeError(got=f"{name}={value!r}", needed=f"a whole number, {lowest} or more", fix="choose one")

    def batch(self, n: int) -> int:
        """How many resamples of n units to draw at once, in bounded memory."""
        return max(1, _BATCH // max(1, n))


@dataclass(frozen=True)
class Units:
    """What is resampled: images, or groups of images that belong together.

    Attributes:
        sums: (G,) the sum of each unit's values.
        counts: (G,) how many there are, 1 or more.
    """

    sums: Floats
    counts: Floats

    @classmethod
    def of(cls, values: Floats, groups: NDArray[np.int64] | None = None) -> Units:
        """Collect the values of each group.

        Args:
            values: (N,) finite.
            groups: (N,) a number for each group; every value is a unit of its own by default.

        Returns:
            The units, in an order that does not depend on the values' own, so that draws of one seed are the same
            however the data were shuffled or shared between processes.

        Example:
            >>> units = Units.of(np.array([1.0, 0.0, 1.0]), np.array([7, 3, 7]))
            >>> units.sums.tolist(), units.counts.tolist()
            ([0.0, 2.0], [1.0, 2.0])
        """
        if groups is None:
            return cls(np.sort(values), np.ones_like(values))
        _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
        sums = np.bincount(index, weights=values, minlength=len(counts)).astype(np.float64)
        order = np.lexsort((sums, counts))
        return cls(sums[order], counts[order].astype(np.float64))


def mean_interval(units: Units, resampling: Resampling) -> tuple[float, float]:
    r"""The BCa bootstrap interval of the mean over all values, with whole groups drawn.

    Of a resample of groups the statistic is :math:`\sum_g s_g / \sum_g n_g`, the sum of the values over their number,
    and not the mean of the groups' means: it is the mean over images that is reported, and groups of unequal size
    enter it by their size. A group that is drawn twice counts twice, with all its images.

    Efron's bias-corrected and accelerated interval (BCa) of ``scipy.stats.bootstrap``. Its time grows with
    ``n_resamples`` times G and with the square of G (a second for a thousand images); its memory is bounded. Few groups
    make it too narrow: in simulations with 1 to 7 images a group, a 95 % interval covered the truth in 86 % of the
    cases for 10 groups, in 92 % for 20 and in 94 % for 40.

    Args:
        units: G of them.
        resampling: level, number and seed.

    Returns:
        The lower and the upper end; nan for both where there is no spread to resample, which is so for fewer than two
        units, for units of one mean, and where BCa is not defined otherwise.

    Example:
        >>> low, high = mean_interval(Units.of(np.arange(100.0)), Resampling(n_resamples=999))
        >>> 43 < low < 45 and 54 < high < 56
        True
    """
    sums, counts = units.sums, units.counts
    means = sums / counts
    # Rounding alone is no spread.
    if len(means) < 2 or np.ptp(means) <= 1e-12 * np.abs(means).max():
        return np.nan, np.nan
    alike = bool((counts == counts[0]).all())
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)
        ends = bootstrap(
            (means,) if alike else (sums, counts),
            np.mean if alike else _ratio_of_sums,
            paired=not alike,
            vectorized=True,
            n_resamples=resampling.n_resamples,
            batch=resampling.batch(len(means)),
            confidence_level=resampling.interval,
            random_state=np.random.default_rng(resampling.seed),
        ).confidence_interval
    low, high = float(ends.low), float(ends.high)
    return (low, high) if low <= high else (np.nan, np.nan)


def _ratio_of_sums(sums: Floats, counts: Floats, axis: int) -> Floats:
    ratio: Floats = sums.sum(axis) / counts.sum(axis)
    return ratio
