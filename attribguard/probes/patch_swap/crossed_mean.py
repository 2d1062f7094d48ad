"""Means over two crossed random factors: their standard errors, intervals and one-sided tests."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["CrossedMean", "crossed_mean", "excess", "holm"]

Floats = NDArray[np.float64]

# Smaller differences of float32 probabilities are rounding.
_ROUNDING = 1e-6


class CrossedMean(NamedTuple):
    """Means with what is known of their error.

    Attributes:
        mean: (P,).
        error: (P,), standard errors; nan where a random factor has one level only.
        freedom: degrees of freedom of Student's t.
    """

    mean: Floats
    error: Floats
    freedom: int

    def interval(self, level: float) -> Floats:
        """Student's two-sided interval, (P, 2).

        Args:
            level: its coverage, between 0 and 1.
        """
        half = special.stdtrit(self.freedom, 0.5 + level / 2) * self.error
        return np.stack([self.mean - half, self.mean + half], -1)

    def above_zero(self) -> Floats:
        """Student's one-sided p values of "the true mean is not above 0", (P,); 0.5 or more within rounding of 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            tail: Floats = special.stdtr(self.freedom, -self.mean / self.error)
        return np.where(np.isfinite(self.error) & (self.mean <= _ROUNDING), np.fmax(tail, 0.5), tail)


def crossed_mean(values: Floats, *, columns_random: bool = True) -> CrossedMean:
    r"""The mean over rows and columns, both of them samples from larger populations.

    With :math:`v_{sn} = \mu + a_s + b_n + e_{sn}` the mean's variance is
    :math:`\sigma_a^2/S + \sigma_b^2/N + \sigma_e^2/(SN)`, which the mean squares of the two-way table estimate as
    :math:`(M_a + M_b - M_e)/(SN)`. Where chance makes that smaller than one factor's own share, the share is taken.
    Degrees of freedom are those of the factor with fewer levels, which errs on the safe side.

    Args:
        values: (S, N, P).
        columns_random: whether another study would have other columns; otherwise only the rows are a sample.

    Returns:
        One mean for each of the P.
    """
    rows, columns, _ = values.shape
    mean = values.mean((0, 1))
    by_row, by_column = values.mean(1) - mean, values.mean(0) - mean
    with np.errstate(divide="ignore", invalid="ignore"):  # one level: 0 / 0, nan
        row_share = np.square(by_row).sum(0) * columns / np.float64(rows - 1)
        if not columns_random:
            return CrossedMean(mean, np.sqrt(row_share / (rows * columns)), rows - 1)
        column_share = np.square(by_column).sum(0) * rows / np.float64(columns - 1)
        rest = np.square(values - mean - by_row[:, None] - by_column).sum((0, 1))
        rest_share = rest / np.float64((rows - 1) * (columns - 1))
    share = np.maximum(row_share + column_share - rest_share, np.maximum(row_share, column_share))
    return CrossedMean(mean, np.sqrt(share / (rows * columns)), min(rows, columns) - 1)


def excess(values: Floats) -> Floats:
    """Each value minus the mean of the others along the last axis; nan where there are no others.

    Args:
        values: (..., P).

    Returns:
        The same shape.
    """
    count = values.shape[-1]
    others = (values.sum(-1, keepdims=True) - values) / np.float64(count - 1) if count > 1 else np.nan
    return np.asarray(values - others)


def holm(p_values: Floats) -> Floats:
    """Holm's correction (1979): at most a share alpha of studies without effects has any value of alpha or less.

    Args:
        p_values: (P,), in [0, 1].

    Returns:
        (P,), in [0, 1].

    Example:
        >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(stepped, 1)
    return corrected
