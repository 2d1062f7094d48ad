"""Paired comparison of two networks."""

import math
import warnings

import numpy as np
import pytest
import torch

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.probes.compare import compare
from attribguard.probes.interval import Resampling, Units, mean_interval
from attribguard.probes.localisation import IoBB, PointingGame, SoftIoBB, SoftIoR
from attribguard.probes.sign_flip import sign_flip_test

DRAWS = {"n_resamples": 200}
NAN = float("nan")


def pair(n=30, effect=0.1, seed=0):
    rng = np.random.default_rng(seed)
    b = rng.uniform(0.2, 0.6, n)
    return b + rng.normal(effect, 0.1, n), b


def metrics(n=10, kind=SoftIoBB, **labels):
    masks = torch.rand(n, 5, 5) < 0.4
    masks[::5] = False
    made = []
    for _ in range(2):
        metric = kind()
        metric.update(torch.randn(n, 5, 5), masks, **labels)
        made.append(metric)
    return made


def test_the_difference_is_taken_image_by_image():
    a, b = pair()
    result = compare(a, b, interval=0.9, n_resamples=300, seed=2)
    draws, units = Resampling(0.9, 300, 2), Units.of(a - b)
    assert result.value == pytest.approx((a - b).mean())
    assert result.interval == mean_interval(units, draws)
    assert result.p_value == sign_flip_test(units.sums, draws)
    assert (result.mean_a, result.mean_b) == pytest.approx((a.mean(), b.mean()))
    assert (result.n, result.skipped, result.groups, result.resampling) == (30, 0, None, draws)
    assert result.metric is None and result.normalize is None


def test_pairing_sees_what_two_separate_intervals_do_not():
    rng = np.random.default_rng(0)
    easy = rng.uniform(0, 1, 60)
    a, b = 0.8 * easy + 0.03 + rng.normal(0, 0.01, 60), 0.8 * easy
    result = compare(a, b, **DRAWS)
    assert result.interval[0] > 0 and result.p_value < 0.02
    of_a, of_b = (mean_interval(Units.of(x), Resampling(n_resamples=200)) for x in (a, b))
    assert of_a[0] < of_b[1]


def test_exchanging_the_networks_changes_the_sign_alone():
    a, b = pair()
    groups = np.arange(30) // 4
    for belongs in (None, groups):
        one, other = compare(a, b, belongs), compare(b, a, belongs)
        assert one.value == pytest.approx(-other.value)
        assert one.interval == pytest.approx([-end for end in other.interval[::-1]], rel=0.1)
        assert one.p_value == pytest.approx(other.p_value, rel=0.5)


def test_groups_change_their_sign_and_are_drawn_as_a_whole():
    a, b = pair()
    groups = [f"patient {i // 6}" for i in range(30)]
    result = compare(a, b, groups, **DRAWS)
    sums = (a - b).reshape(5, 6).sum(1)
    assert result.groups == 5 and result.p_value == sign_flip_test(sums, Resampling(n_resamples=200)) == 2 / 32
    assert result.interval == mean_interval(Units.of(a - b, np.arange(30) // 6), Resampling(n_resamples=200))


def test_ignoring_groups_finds_differences_where_there_are_none_and_groups_do_not():
    """150 comparisons of equal networks; the images of a patient err together."""
    found = np.zeros(2)
    for trial in range(150):
        rng = np.random.default_rng(trial)
        patients = np.repeat(np.arange(12), rng.integers(1, 9, 12))
        a = rng.normal(0, 1, 12)[patients] + rng.normal(0, 0.2, len(patients))
        for i, groups in enumerate((patients, None)):
            found[i] += compare(a, np.zeros_like(a), groups, n_resamples=199).p_value <= 0.05
    assert found[0] / 150 <= 0.09
    assert found[1] / 150 > 0.25


def test_pairs_with_a_nan_are_dropped_and_counted():
    a, b = pair()
    with_nan = np.append(a, [NAN, 0.3, NAN]), np.append(b, [0.1, NAN, NAN])
    groups = np.append(np.arange(30) // 3, [0, 77, 78])
    result, without = compare(*with_nan, groups, **DRAWS), compare(a, b, np.arange(30) // 3, **DRAWS)
    assert result.skipped == 3 and result.n == 30 and result.groups == without.groups == 10
    assert (result.value, *result.interval, result.p_value) == (without.value, *without.interval, without.p_value)
    assert (result.mean_a, result.mean_b) == (without.mean_a, without.mean_b)


def test_tensors_arrays_and_lists_are_alike():
    a, b = pair(8)
    expected = compare(a, b, **DRAWS)
    as_tensors = [torch.from_numpy(x).requires_grad_() for x in (a, b)]
    assert compare(*as_tensors, **DRAWS) == compare(a.tolist(), tuple(b.tolist()), **DRAWS) == expected
    assert compare(torch.tensor(a).half(), b, **DRAWS).value == pytest.approx(expected.value, abs=1e-3)


def test_nothing_to_compare_and_no_difference_are_told_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for a, b in (([], []), ([NAN], [0.1])):
            empty = compare(a, b)
            assert empty.n == 0 and empty.skipped == len(a)
            assert all(map(math.isnan, (empty.value, *empty.interval, empty.p_value, empty.mean_a, empty.mean_b)))
        same = compare([0.1, 0.5, 0.7], [0.1, 0.5, 0.7])
        assert same.value == 0 and same.p_value == 1 and all(map(math.isnan, same.interval))


def test_metrics_are_compared_by_their_images_and_groups():
    groups = [f"p{i // 3}" for i in range(10)]
    a, b = metrics(groups=groups, classes=list(range(10)))
    result = compare(a, b, **DRAWS)
    kept = [name for i, name in enumerate(groups) if i % 5]
    assert result == compare(a, b, kept, **DRAWS)
    numbers = compare(a.per_image().values, b.per_image().values, kept, **DRAWS)
    assert (result.value, result.interval, result.p_value) == (numbers.value, numbers.interval, numbers.p_value)
    assert result.groups == 4 and result.n == 8
    assert result.value == pytest.approx((a.compute() - b.compute()).item(), abs=1e-6)
    assert (result.metric, result.normalize) == ("SoftIoBB", "minmax")
    assert "SoftIoBB (normalize=minmax)" in str(result) and "4 groups" in str(result)


def test_groups_that_one_metric_alone_was_given_count():
    a, b = metrics()
    c = SoftIoBB()
    c.update(torch.rand(8, 3, 3), torch.eye(3).expand(8, 3, 3), groups=[0, 0, 1, 1, 2, 2, 3, 3])
    assert compare(a, c, **DRAWS).groups == compare(c, b, **DRAWS).groups == 4
    assert compare(a, b, **DRAWS).groups is None


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: (metrics()[0], [0.1] * 8), TypeMismatchError, "two metrics"),
        (lambda: ([0.1] * 8, metrics()[0]), TypeMismatchError, "two metrics"),
        (lambda: (metrics()[0], metrics(kind=SoftIoR)[0]), RangeError, "the same measure"),
        (lambda: (metrics()[0], metrics(kind=lambda: SoftIoBB(normalize="max"))[0]), RangeError, "normalize=max"),
        (lambda: [metrics(kind=lambda t=t: PointingGame(t))[0] for t in (0, 15)], RangeError, "tolerance=15"),
        (lambda: metrics(kind=lambda: IoBB([0.2, 0.5])), ShapeError, "one threshold"),
        (lambda: (metrics(10)[0], metrics(20)[0]), ShapeError, "8 and 16"),
        (lambda: (metrics(groups=[0] * 10)[0], metrics(groups=[1] * 10)[0]), RangeError, "different groups"),
        (lambda: (metrics(classes=[0] * 10)[0], metrics(classes=[1] * 10)[0]), RangeError, "different classes"),
        (lambda: (metrics(10, groups=[0] * 10)[0], metrics(20, groups=[0] * 20)[0]), RangeError, "different groups"),
        (lambda: ([0.1, 0.2], [0.1]), ShapeError, "2 and 1"),
        (lambda: ([0.1, 0.2], [0.1, 0.2], [0]), ShapeError, "groups"),
        (lambda: ([[0.1, 0.2]], [[0.1, 0.2]]), ShapeError, r"\(1, 2\)"),
        (lambda: (["a"], [0.1]), TypeMismatchError, "numbers"),
        (lambda: (0.1, 0.2), ShapeError, "one number an image"),
        (lambda: ([math.inf], [0.1]), RangeError, "infinite"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_error(make, kind, words):
    with pytest.raises(kind, match=words):
        compare(*make())


@pytest.mark.parametrize("settings", [{"interval": 0}, {"n_resamples": 1}, {"seed": -1}])
def test_settings_outside_their_range_are_refused(settings):
    with pytest.raises(RangeError):
        compare([0.1, 0.2], [0.2, 0.1], **settings)
