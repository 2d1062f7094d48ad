import pytest
import torch

from attribguard.auditing.concepts import count_units
from attribguard.auditing.pools import FeaturePool


def test_the_unit_that_marks_the_region_comes_first():
    torch.manual_seed(0)
    regions = torch.zeros(60, 40, 40, dtype=torch.bool)
    features = torch.rand(60, 3, 20, 20)
    for number in range(60):
        row, column = divmod(number, 8)
        regions[number, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
        features[number, 1, 2 * row, 2 * column] = 9.0 + number / 100
    pool = FeaturePool()
    pool.add(features, regions)
    found = count_units(pool)
    assert (found.units, found.images, len(found.best)) == (3, 60, 3)
    assert found.best[0].unit == 1 and found.best[0].images >= 58
    # 0.5 % are 120 of 24,000 activations: 60 of the 240 cells in regions, and 60 that are anywhere.
    assert found.best[0].alignment == pytest.approx(60 / 300, rel=0.03)
    assert found.best[0].alignment > 10 * found.best[1].alignment
    assert 0.9 <= found.unique <= 1.2 and found.disjoint >= found.unique
