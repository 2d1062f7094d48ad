"""The statistics of benchmarks, against numbers that are known."""

import math

import pytest
import torch

from benchmarks.ratios import Ratio, fitted_exponent, median_interval, paired_ratio, verdict


def test_a_ratio_is_paired_round_by_round():
    # The ratio of the medians, and of what the sorted rounds give, is 1.8.
    assert paired_ratio([1, 20, 9], [10, 5, 3]).median == 3


@pytest.mark.parametrize(("n", "k"), [(6, 1), (7, 1), (8, 1), (9, 2), (11, 2), (12, 3), (20, 6), (25, 8)])
def test_the_interval_has_the_published_order_statistics(n, k):
    """The k-th values of the usual table for the sign test at 5 %, two-sided."""
    values = torch.randperm(n).tolist()
    assert median_interval(values) == (k - 1, n - k)


def test_five_rounds_are_too_few_for_an_interval():
    assert median_interval([1, 2, 3, 4, 5]) == (-math.inf, math.inf)


def test_the_interval_covers_the_median_of_a_skewed_distribution():
    draws = torch.empty(2000, 9).exponential_(generator=torch.Generator().manual_seed(0))
    covered = [low <= math.log(2) <= high for low, high in map(median_interval, draws.tolist())]
    assert 0.945 < sum(covered) / len(covered) < 0.975  # 1 - 2 (1 + 9) / 512 = 0.961


@pytest.mark.parametrize(
    ("ratio", "bar", "expected"),
    [
        (Ratio(1.0, 0.9, 1.1), {"most": 1.05}, "met"),
        (Ratio(1.1, 1.0, 1.2), {"most": 1.05}, "open"),
        (Ratio(1.1, 1.06, 1.2), {"most": 1.05}, "missed"),
        (Ratio(160, 140, 170), {"least": 150}, "met"),
        (Ratio(140, 130, 155), {"least": 150}, "open"),
        (Ratio(140, 130, 149), {"least": 150}, "missed"),
        (Ratio(140, -math.inf, math.inf), {"least": 150}, "open"),
        (Ratio(140, 130, 149), {}, ""),
    ],
)
def test_a_bar_is_missed_only_by_the_whole_interval(ratio, bar, expected):
    assert verdict(ratio, **bar) == expected


def test_the_exponent_of_a_power_is_found():
    exponent = fitted_exponent([8, 16, 32, 64], [3 * n**1.5 for n in (8, 16, 32, 64)])
    assert exponent.value == pytest.approx(1.5) and exponent.error == pytest.approx(0, abs=1e-9)


def test_the_error_of_an_exponent_is_that_of_linear_regression():
    # Log costs 0, 1, 1 at log sizes 0, 1, 2: slope 1/2, residuals -1/6, 1/3, -1/6, so sqrt(1/6 / 1 / 2).
    exponent = fitted_exponent([1, math.e, math.e**2], [1, math.e, math.e])
    assert exponent.value == pytest.approx(0.5) and exponent.error == pytest.approx(math.sqrt(1 / 12))
    assert math.isnan(fitted_exponent([1, 2], [1, 2]).error)
