import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribguard.data.splits import leaking_split, split_by_group
from attribguard.errors import DataError

PATIENTS = [f"p{number % 37}" for number in range(500)]


def groups_of(part, groups):
    return {groups[index] for index in part.indices}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=0, max_size=150), st.integers(0, 1000))
def test_every_item_is_in_one_part_and_no_group_in_two(more, seed):
    groups = [*range(31), *range(31), *range(31), *more]
    parts = split_by_group(range(len(groups)), groups, (0.4, 0.3, 0.3), seed)
    assert sorted(index for part in parts for index in part.indices) == list(range(len(groups)))
    homes = [groups_of(part, groups) for part in parts]
    assert not (homes[0] & homes[1] or homes[0] & homes[2] or homes[1] & homes[2])
    assert all(part.indices == sorted(part.indices) for part in parts)
    largest = np.bincount(groups).max()
    for part, share in zip(parts, (0.4, 0.3, 0.3), strict=True):
        assert abs(len(part) - share * len(groups)) <= largest


def test_a_part_is_off_its_share_by_half_a_group_at_an_end_at_most():
    groups = [number // 10 for number in range(1000)]
    for seed in range(20):
        first, last = split_by_group(range(1000), groups, (0.333, 0.667), seed)
        assert abs(len(first) - 333) <= 5 and len(first) + len(last) == 1000


def test_groups_of_one_item_give_the_shares_to_the_item():
    assert [len(part) for part in split_by_group(range(100), range(100), (0.7, 0.15, 0.15))] == [70, 15, 15]


def test_the_parts_depend_on_the_seed_and_not_on_the_order_of_the_items():
    def training(groups, seed):
        return groups_of(split_by_group(range(500), groups, (0.5, 0.5), seed)[0], groups)

    assert training(PATIENTS, 3) == training(PATIENTS[::-1], 3) == training(list(PATIENTS), 3)
    assert len({frozenset(training(PATIENTS, seed)) for seed in range(5)}) == 5


def test_each_group_comes_into_each_part_as_often_as_the_shares_say():
    counts = np.zeros(10)
    for seed in range(400):
        counts[split_by_group(range(10), range(10), (0.3, 0.7), seed)[0].indices] += 1
    assert np.abs(counts / 400 - 0.3).max() < 0.1  # more than four standard errors


def test_the_parts_hold_the_data_sets_own_items():
    items = [f"item {number}" for number in range(500)]
    first, _ = split_by_group(items, PATIENTS, (0.5, 0.5))
    assert [first[place] for place in range(3)] == [items[index] for index in first.indices[:3]]


def test_the_leaking_split_has_patients_on_both_sides():
    train, test = leaking_split(range(500), (0.8, 0.2), seed=1)
    assert (len(train), len(test)) == (400, 100) and set(train.indices).isdisjoint(test.indices)
    assert len(groups_of(train, PATIENTS) & groups_of(test, PATIENTS)) > 30


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.6), (0.5,), (1.2, -0.2), (1, 0), (float("nan"), 1), (), 1.0, ((0.5, 0.5),)]
)
def test_shares_that_are_none_are_one_clear_error(fractions):
    with pytest.raises(DataError, match="fractions="):
        split_by_group(range(4), range(4), fractions)


@pytest.mark.parametrize(
    ("items", "groups", "options", "words"),
    [
        (3, [1, 2], {}, "2 groups for 3 items"),
        (3, [1, 1, 1], {}, "1 groups of up to 3 items"),
        (0, [], {}, "0 groups of up to 0"),
        (2, [1, 2], {"seed": -1}, "seed=-1"),
        (2, [1, 2], {"seed": 0.5}, r"seed=0\.5"),
    ],
)
def test_what_cannot_be_parted_is_one_clear_error(items, groups, options, words):
    with pytest.raises(DataError, match=words):
        split_by_group(range(items), groups, (0.5, 0.5), **options)
