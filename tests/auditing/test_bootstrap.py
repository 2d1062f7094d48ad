import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribguard.auditing.bootstrap import Figure, estimate


def mean_of(values):
    values = np.asarray(values, float)
    return lambda index: float(values[index].mean())


def test_the_interval_of_a_share_is_near_the_normal_one():
    values = np.arange(400) % 4 == 0
    figure = estimate(mean_of(values), 400, [], 0)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert figure.value == 0.25 and figure.n == 400
    assert figure.low == pytest.approx(0.25 - half, abs=0.01) and figure.high == pytest.approx(0.25 + half, abs=0.01)


def test_images_of_a_group_are_drawn_together_and_make_the_interval_wider():
    values = np.repeat(np.arange(40) >= 20, 10)
    groups = [str(index // 10) for index in range(400)]
    alone, together = (estimate(mean_of(values), 400, some, 0) for some in ([], groups))
    assert together.value == alone.value
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)


def test_groups_need_not_stand_together():
    values, names = [0.0, 1.0, 0.0, 1.0], ["a", "b", "a", "b"]
    figure = estimate(mean_of(values), 4, names, 0)
    assert (figure.low, figure.high) == (0.0, 1.0)


def test_without_spread_to_draw_there_is_no_interval():
    assert estimate(mean_of([1.0, 0.0]), 2, ["a", "a"], 0) == Figure(0.5, None, None, 2)
    assert estimate(mean_of([1.0]), 1, [], 0) == Figure(1.0, None, None, 1)


def test_what_is_not_defined_has_no_value():
    assert estimate(lambda index: float("nan"), 5, [], 0) == Figure(None, None, None, 5)
    assert estimate(mean_of([]), 0, [], 0) == Figure(None, None, None, 0)
    seldom = estimate(lambda index: 1.0 if len(set(index.tolist())) > 4 else float("nan"), 5, [], 0)
    assert seldom == Figure(1.0, None, None, 5)


def test_a_figure_is_written_with_its_interval():
    assert str(Figure(0.5, 0.25, 0.75, 4)) == "0.500 [0.250, 0.750]"
    assert str(Figure(0.5, None, None, 4)) == "0.500" and str(Figure(None, None, None, 0)) == "–"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=30), st.integers(0, 5))
def test_intervals_hold_within_the_values_and_repeat(values, seed):
    figure = estimate(mean_of(values), len(values), [], seed, resamples=50)
    assert figure == estimate(mean_of(values), len(values), [], seed, resamples=50)
    assert min(values) - 1e-9 <= figure.low <= figure.high <= max(values) + 1e-9
