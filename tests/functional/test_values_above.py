"""The values of units that are larger than a bound."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.functional.values_above import values_above


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.sampled_from([(1, 1), (2, 3)]))
def test_each_unit_gets_exactly_its_values_above_its_floor(seed, n, units, size):
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randint(-3, 4, (n, units, *size), generator=draw).float()
    floor = torch.randint(-4, 4, (units,), generator=draw).float()
    found = values_above(maps, floor)
    expected = [sorted(v for v in maps[:, u].flatten().tolist() if v > floor[u]) for u in range(units)]
    assert [sorted(v for v in column.tolist() if v > -torch.inf) for column in found.t()] == expected
    assert len(found) == max(map(len, expected))


def test_the_memory_layout_does_not_matter():
    maps = torch.randn(3, 5, 4, 4)
    floor = torch.zeros(5)
    other = maps.to(memory_format=torch.channels_last)
    assert torch.equal(values_above(maps, floor).sort(0).values, values_above(other, floor).sort(0).values)
