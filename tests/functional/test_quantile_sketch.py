"""The sketch keeps its size, its weight and its promise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.functional.quantile_sketch import SMALLEST_SKETCH, compact, upper_quantiles


def stream(values, limit, batch, seed=0):
    """Sketch (U, n) values batch by batch."""
    held, weights, squares = values[:, :0], torch.zeros(0), 0.0
    for i, part in enumerate(values.split(batch, 1)):
        held, weights = torch.cat([held, part], 1), torch.cat([weights, torch.ones(part.shape[1])])
        if len(weights) > limit:
            held, weights, more = compact(held, weights, limit, torch.Generator().manual_seed(seed * 100_000 + i))
            squares += more
            assert len(weights) == held.shape[1] <= limit
    return held, weights, squares


def weight_above(held, weights, numbers):
    """(U, K): how much weight is above each number."""
    return ((held[:, :, None] > numbers).double() * weights.double()[:, None]).sum(1)


@pytest.mark.parametrize("batch", [1, 37, 5000])
def test_the_weights_add_up_to_the_number_of_values(batch):
    n = 2500 if batch == 1 else 20_011
    _, weights, _ = stream(torch.rand(3, n), SMALLEST_SKETCH, batch)
    assert weights.double().sum() == n
    assert weights.log2().frac().eq(0).all()


def test_what_is_kept_are_values_of_the_same_unit():
    values = torch.rand(4, 10_000)
    held, _, _ = stream(values, SMALLEST_SKETCH, 300)
    for mine, all_of_it in zip(held.tolist(), values.tolist(), strict=True):
        assert len(mine) > SMALLEST_SKETCH // 2 and set(mine) <= set(all_of_it)


@pytest.mark.parametrize("order", ["shuffled", "ascending", "descending"])
def test_the_rank_error_keeps_its_bound_and_is_without_bias(order):
    units, n = 200, 20_000
    ranks = torch.arange(n, dtype=torch.float32)
    line = {"shuffled": ranks[torch.randperm(n)], "ascending": ranks, "descending": ranks.flip(0)}[order]
    held, weights, squares = stream(line.expand(units, n), 600, 700)
    asked = torch.tensor([n * share for share in (0.5, 0.9, 0.95, 0.99, 0.995)]).floor()
    errors = weight_above(held, weights, asked) - (n - 1 - asked)
    assert errors.abs().max() > 0
    # Five thousandths may be over this bound; the inequality is not sharp, and none is.
    assert errors.abs().max() <= math.sqrt(2 * math.log(2 / 0.005) * squares)
    assert (errors.mean(0).abs() <= 5 * math.sqrt(squares / units)).all()
    assert errors.square().mean() <= squares


def test_one_step_is_off_by_half_a_pair_and_counts_one():
    values = torch.arange(700.0).expand(64, 700)
    held, weights, squares = compact(values, torch.ones(700), 600, torch.Generator().manual_seed(0))
    assert squares == 1 and weights.tolist() == [2.0] * 350
    pairs = held.sort(1).values // 2
    assert torch.equal(pairs, torch.arange(350.0).expand(64, 350)), "one of each two neighbours"
    firsts = (held.sort(1).values % 2).eq(0)
    assert (firsts.all(1) | (~firsts).all(1)).all(), "the same one of every pair"
    assert 16 < firsts.all(1).sum() < 48, "by a coin for each unit"


def test_an_odd_value_stays_as_it_is():
    held, weights, _ = compact(torch.arange(701.0)[None], torch.ones(701), 600, torch.Generator())
    assert weights.tolist() == [1.0] + [2.0] * 350 and held[0, 0] == 700


def test_two_sketches_put_together_are_a_sketch_of_all_values():
    values = torch.randn(50, 24_000)
    parts = [stream(values[:, :5000], 600, 400, seed=1), stream(values[:, 5000:], 600, 400, seed=2)]
    held, weights, squares = (
        torch.cat([part[i] for part in parts], dim) if dim is not None else sum(part[i] for part in parts)
        for i, dim in enumerate((1, 0, None))
    )
    assert weights.sum() == 24_000
    found = upper_quantiles(held, weights, [120, 2400])
    for row, k in zip(found, (120, 2400), strict=True):
        off = (values > row[:, None]).sum(1) - k
        assert off.abs().max() <= math.sqrt(2 * math.log(2 / 0.001) * squares)


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_a_weight_stands_for_so_many_equal_values(n, seed):
    source = np.random.default_rng(seed)
    values, weights = source.integers(0, 9, (3, n)).astype(np.float32), source.integers(1, 5, n)
    whole = np.repeat(values, weights, axis=1)
    above = [0, int(weights.sum()) // 3, int(weights.sum()) - 1]
    found = upper_quantiles(torch.from_numpy(values), torch.from_numpy(weights).float(), above)
    for row, k in zip(found.tolist(), above, strict=True):
        assert row == [min(v for v in unit if (unit > v).sum() <= k) for unit in whole]


def test_many_units_are_read_like_few():
    values = torch.rand(150, 30)
    found = upper_quantiles(values, torch.ones(30), [4])
    assert found[0].tolist() == [sorted(row)[-5] for row in values.tolist()]
