"""Bootstrap intervals of a mean, against resampling in a loop, scipy's own call, and known truths."""

import math
import statistics
import warnings

import numpy as np
import pytest
import scipy.stats

from attribguard.errors import RangeError, TypeMismatchError
from attribguard.probes.interval import Resampling, Units, mean_interval

NORMAL = statistics.NormalDist()


def skewed(n, seed=0):
    return np.random.default_rng(seed).exponential(size=n)


def clusters(sizes, seed, spread=0.3, noise=0.05):
    """Values around a mean of 0.5 that differ from group to group more than within one."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return 0.5 + rng.normal(0, spread, len(sizes))[groups] + rng.normal(0, noise, len(groups)), groups


def bca_by_loops(values, groups, level, n_resamples, seed):
    """Efron and Tibshirani, Section 14.3, on a dict of groups, one resample after the other."""
    members = {}
    for value, group in zip(values.tolist(), groups.tolist(), strict=True):
        members.setdefault(group, []).append(value)
    names = sorted(members)

    def mean_of(chosen):
        every = [value for name in chosen for value in members[name]]
        return sum(every) / len(every)

    rng = np.random.default_rng(seed)
    drawn = sorted(mean_of([names[i] for i in rng.integers(0, len(names), len(names))]) for _ in range(n_resamples))
    bias = NORMAL.inv_cdf(sum(value < mean_of(names) for value in drawn) / n_resamples)
    left_out = [mean_of([name for name in names if name != other]) for other in names]
    centre = sum(left_out) / len(left_out)
    cubes, squares = (sum((centre - value) ** power for value in left_out) for power in (3, 2))
    acceleration = cubes / (6 * squares**1.5)

    def end(quantile):
        z = bias + NORMAL.inv_cdf(quantile)
        return drawn[math.floor(NORMAL.cdf(bias + z / (1 - acceleration * z)) * n_resamples)]

    return end((1 - level) / 2), end((1 + level) / 2)


def test_without_groups_it_is_scipys_interval_of_the_mean():
    values = skewed(40)
    for level in (0.8, 0.95):
        expected = scipy.stats.bootstrap(
            (np.sort(values),), np.mean, n_resamples=500, confidence_level=level, rng=np.random.default_rng(3)
        ).confidence_interval
        ours = mean_interval(Units.of(values), Resampling(level, 500, 3))
        assert ours == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("sizes", [[3] * 15, [1, 2, 9, 1, 1, 4, 20, 2, 3, 1, 6, 5]])
def test_with_groups_it_is_the_interval_of_the_mean_over_images_when_whole_groups_are_drawn(sizes):
    values, groups = clusters(sizes, 1)
    expected = bca_by_loops(values**3, groups, 0.9, 4000, seed=5)
    ours = mean_interval(Units.of(values**3, groups), Resampling(0.9, 9999))
    width = expected[1] - expected[0]
    assert ours == pytest.approx(expected, abs=0.06 * width)


def test_the_batches_in_which_it_draws_do_not_show(monkeypatch):
    values, groups = clusters([1, 4, 2] * 7, 2)
    whole = mean_interval(Units.of(values, groups), Resampling(n_resamples=300))
    monkeypatch.setattr("attribguard.probes.interval._BATCH", 100)
    assert mean_interval(Units.of(values, groups), Resampling(n_resamples=300)) == pytest.approx(whole, abs=1e-12)


def test_it_does_not_depend_on_the_order_of_the_data_or_the_names_of_the_groups():
    values, groups = clusters([1, 4, 2, 5] * 5, 3)
    order = np.random.default_rng(0).permutation(len(values))
    for first, second in (
        (Units.of(values), Units.of(values[order])),
        (Units.of(values, groups), Units.of(values[order], -7 * groups[order])),
    ):
        draws = Resampling(n_resamples=200)
        assert mean_interval(first, draws) == pytest.approx(mean_interval(second, draws), abs=1e-12)


def test_a_group_for_each_image_is_no_group():
    values, draws = skewed(30), Resampling(n_resamples=200)
    assert mean_interval(Units.of(values, np.arange(30)), draws) == mean_interval(Units.of(values), draws)


def test_seed_and_level_matter_and_the_same_seed_repeats():
    units = Units.of(skewed(30))
    one = mean_interval(units, Resampling(n_resamples=200))
    assert one == mean_interval(units, Resampling(n_resamples=200))
    assert one != mean_interval(units, Resampling(n_resamples=200, seed=1))
    low, high = mean_interval(units, Resampling(0.5, 200))
    assert one[0] < low < high < one[1]


def test_intervals_over_groups_cover_the_truth_and_those_over_images_do_not():
    """200 data sets of 30 patients with 1 to 8 images; the truth is 0.5."""
    draws, covered = Resampling(n_resamples=400), np.zeros(2)
    for trial in range(200):
        sizes = np.random.default_rng(1000 + trial).integers(1, 9, 30)
        values, groups = clusters(sizes, trial)
        for i, units in enumerate((Units.of(values, groups), Units.of(values))):
            low, high = mean_interval(units, draws)
            covered[i] += low <= 0.5 <= high
    by_group, by_image = covered / 200
    assert 0.88 <= by_group <= 0.985
    assert by_image < 0.75


@pytest.mark.parametrize(
    ("values", "groups"),
    [
        ([], None),
        ([0.4], None),
        ([0.4] * 30, None),
        ([0.1] * 30, [0] * 3 + [1] * 7 + [2] * 20),
        ([0.0, 1.0] * 3, [0, 0, 1, 1, 2, 2]),
        ([0.1, 0.9], [5, 5]),
        ([0.0] * 9, None),
    ],
)
def test_where_nothing_varies_the_interval_is_nan_without_a_warning(values, groups):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        units = Units.of(np.array(values, np.float64), None if groups is None else np.array(groups))
        assert all(map(math.isnan, mean_interval(units, Resampling(n_resamples=50))))


def test_two_resamples_of_two_images_give_an_interval_or_nan_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(20):
            low, high = mean_interval(Units.of(np.array([0.0, 1.0])), Resampling(n_resamples=2, seed=seed))
            assert low <= high or (math.isnan(low) and math.isnan(high))


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"interval": 0.0}, RangeError),
        ({"interval": 1.0}, RangeError),
        ({"interval": 95}, RangeError),
        ({"interval": math.nan}, RangeError),
        ({"interval": "0.95"}, TypeMismatchError),
        ({"n_resamples": 1}, RangeError),
        ({"n_resamples": 99.0}, RangeError),
        ({"seed": -1}, RangeError),
        ({"seed": None}, RangeError),
    ],
)
def test_settings_outside_their_range_are_refused(arguments, kind):
    with pytest.raises(kind, match=next(iter(arguments))):
        Resampling(**arguments)
