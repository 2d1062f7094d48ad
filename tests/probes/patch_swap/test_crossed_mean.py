import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from attribguard.probes.patch_swap.crossed_mean import crossed_mean, excess, holm


def variance_by_hand(table):
    """Of the mean of a two-way table, from its analysis of variance, cell by cell."""
    rows, columns = table.shape
    grand = sum(table[i, j] for i in range(rows) for j in range(columns)) / (rows * columns)
    row = [sum(table[i, j] for j in range(columns)) / columns for i in range(rows)]
    column = [sum(table[i, j] for i in range(rows)) / rows for j in range(columns)]
    ms_rows = columns * sum((r - grand) ** 2 for r in row) / (rows - 1)
    ms_columns = rows * sum((c - grand) ** 2 for c in column) / (columns - 1)
    rest = sum((table[i, j] - row[i] - column[j] + grand) ** 2 for i in range(rows) for j in range(columns))
    ms_rest = rest / ((rows - 1) * (columns - 1))
    return max(ms_rows + ms_columns - ms_rest, ms_rows, ms_columns) / (rows * columns)


def tables(rng, rows, columns, positions=1, *, of_rows=1.0, of_columns=1.0, of_rest=1.0):
    return (
        of_rows * rng.normal(size=(rows, 1, positions))
        + of_columns * rng.normal(size=(1, columns, positions))
        + of_rest * rng.normal(size=(rows, columns, positions))
    )


def test_error_is_that_of_the_two_way_analysis_of_variance():
    values = tables(np.random.default_rng(0), 5, 7, 3)
    result = crossed_mean(values)
    np.testing.assert_allclose(result.mean, values.reshape(-1, 3).mean(0))
    np.testing.assert_allclose(result.error**2, [variance_by_hand(values[..., p]) for p in range(3)])
    assert result.freedom == 4


def test_with_fixed_columns_the_error_is_that_of_the_row_means():
    values = tables(np.random.default_rng(0), 9, 4, 2)
    result = crossed_mean(values, columns_random=False)
    np.testing.assert_allclose(result.error, stats.sem(values.mean(1), axis=0))
    assert result.freedom == 8


@pytest.mark.parametrize("shares", [(1, 1, 1), (1, 0.2, 0), (0.2, 1, 0)])
def test_the_estimated_variance_is_on_average_the_true_one(shares):
    a, b, e = shares
    values = tables(np.random.default_rng(0), 20, 50, 4000, of_rows=a, of_columns=b, of_rest=e)
    true = a**2 / 20 + b**2 / 50 + e**2 / 1000
    assert np.square(crossed_mean(values).error).mean() == pytest.approx(true, rel=0.03)


@pytest.mark.parametrize("shares", [(1, 1, 1), (1, 0, 0.5), (0, 1, 0.5), (0, 0, 1)])
@pytest.mark.parametrize(("rows", "columns"), [(20, 50), (8, 8), (30, 8)])
def test_p_values_under_the_null_are_small_no_more_often_than_they_say(rows, columns, shares):
    a, b, e = shares
    values = tables(np.random.default_rng(0), rows, columns, 4000, of_rows=a, of_columns=b, of_rest=e)
    p_values = crossed_mean(values).above_zero()
    for alpha in (0.05, 0.01):
        # 4000 draws: three standard errors above alpha.
        assert (p_values <= alpha).mean() <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / 4000)
    assert (p_values <= 0.05).any()  # and it is a test at all


def test_intervals_hold_the_true_mean_as_often_as_they_say_at_least():
    values = 0.3 + tables(np.random.default_rng(0), 12, 20, 4000)
    low, high = crossed_mean(values).interval(0.9).T
    held = ((low <= 0.3) & (high >= 0.3)).mean()
    assert 0.89 <= held <= 0.95


def test_a_clear_effect_has_a_small_p_value_and_its_reverse_a_large_one():
    values = tables(np.random.default_rng(0), 10, 10) * 0.1
    assert crossed_mean(values + 1).above_zero()[0] < 1e-6
    assert crossed_mean(values - 1).above_zero()[0] > 1 - 1e-6


def test_p_value_and_interval_agree():
    result = crossed_mean(tables(np.random.default_rng(1), 10, 10, 20) + 0.3)
    shifted = crossed_mean(tables(np.random.default_rng(1), 10, 10, 20) + 0.3 - result.interval(0.9)[:, 0])
    np.testing.assert_allclose(shifted.above_zero(), 0.05, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-8, -0.5])
def test_no_difference_at_all_is_no_evidence(value):
    assert (crossed_mean(np.full((9, 9, 2), value)).above_zero() >= 0.5).all()


def test_a_difference_without_any_spread_is_certain():
    assert (crossed_mean(np.full((9, 9, 1), 0.25)).above_zero() < 1e-12).all()


@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_one_level_of_a_random_factor_says_nothing_of_its_spread(shape):
    result = crossed_mean(np.random.default_rng(0).normal(size=(*shape, 2)))
    assert np.isnan(result.error).all() and np.isnan(result.above_zero()).all()
    assert np.isnan(result.interval(0.95)).all()


def test_excess_is_each_value_minus_the_mean_of_the_others():
    np.testing.assert_allclose(excess(np.array([[1.0, 2.0, 6.0]])), [[1 - 4, 2 - 3.5, 6 - 1.5]])
    assert np.isnan(excess(np.ones((2, 1)))).all()


def holm_by_hand(p_values):
    """Step down: the smallest against all of them, the next against all but one, none below its forerunner."""
    corrected, highest = {}, 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        corrected[i] = highest
    return [corrected[i] for i in range(len(p_values))]


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1)))
def test_holm_is_the_step_down_correction(p_values):
    np.testing.assert_allclose(holm(p_values), holm_by_hand(p_values.tolist()))
