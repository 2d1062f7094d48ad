"""The sign-flip test: exact where it can be, uniform where nothing differs."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from attribguard.probes.interval import Resampling
from attribguard.probes.sign_flip import sign_flip_test
from tests.strategies import seeds


def by_loops(differences):
    """Over all flips, in whole numbers, so that ties are exact."""
    flips = list(itertools.product([-1, 1], repeat=len(differences)))
    extreme = sum(
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) >= abs(sum(differences))
        for signs in flips
    )
    return extreme / len(flips)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_few_differences_are_tested_over_all_flips(tenths):
    """Tenths are not exact in binary: what ties in whole numbers has to tie there too."""
    ours = sign_flip_test(np.array(tenths) / 10, Resampling(n_resamples=256))
    assert ours == pytest.approx(by_loops(tenths), abs=1e-12)


@given(st.integers(2, 8), seeds)
def test_the_exact_test_is_scipys(g, seed):
    differences = np.random.default_rng(seed).normal(0.3, 1, g)
    expected = scipy.stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True
    ).pvalue
    assert sign_flip_test(differences, Resampling()) == pytest.approx(expected, abs=1e-12)


def test_random_flips_come_close_to_the_exact_test_and_never_give_0():
    differences = np.random.default_rng(0).normal(0.4, 1, 12)
    exact = sign_flip_test(differences, Resampling(n_resamples=2**12))
    drawn = sign_flip_test(differences, Resampling(n_resamples=2**12 - 1))
    assert exact != drawn and drawn == pytest.approx(exact, abs=0.03)
    assert sign_flip_test(np.ones(60), Resampling(n_resamples=99)) == 0.01


def test_the_batches_in_which_it_flips_do_not_show(monkeypatch):
    differences = np.random.default_rng(0).normal(0.2, 1, 12)
    for n in (2**12, 500):
        whole = sign_flip_test(differences, Resampling(n_resamples=n))
        with monkeypatch.context() as patched:
            patched.setattr("attribguard.probes.interval._BATCH", 240)
            assert sign_flip_test(differences, Resampling(n_resamples=n)) == pytest.approx(whole, abs=0.05)
            if n == 2**12:
                assert sign_flip_test(differences, Resampling(n_resamples=n)) == whole


@pytest.mark.parametrize(("g", "n_resamples"), [(8, 999), (40, 199)])
def test_p_values_are_uniform_where_nothing_differs(g, n_resamples):
    rng = np.random.default_rng(7)
    p = np.array([sign_flip_test(rng.normal(size=g), Resampling(0.95, n_resamples, trial)) for trial in range(600)])
    for level in (0.05, 0.2, 0.5, 0.8):
        assert (p <= level + 1e-9).mean() == pytest.approx(level, abs=0.06)


def test_no_difference_has_no_p_value_and_zeros_have_1():
    assert math.isnan(sign_flip_test(np.zeros(0), Resampling()))
    assert sign_flip_test(np.zeros(5), Resampling()) == 1
    assert sign_flip_test(np.zeros(50), Resampling(n_resamples=99)) == 1
    assert sign_flip_test(np.array([0.7]), Resampling()) == 1
