import pytest
import torch
from torch import nn

from attribguard.auditing.batches import read_batch
from attribguard.auditing.pools import FeaturePool, ScanPool
from attribguard.auditing.scanning import PairFigure, Scan, scan_pool
from attribguard.errors import DataError
from attribguard.probes import scan_classes
from tests.auditing.subjects import Corner, batches


def pool(n=40):
    kept = ScanPool()
    for number, batch in enumerate(batches(n)):
        kept.add(read_batch(batch, 5 * number))
    return kept


def test_the_first_images_of_the_first_classes_are_kept():
    kept = ScanPool()
    targets = torch.arange(200) % 5
    kept.add(read_batch((torch.arange(200.0).view(200, 1, 1, 1).expand(200, 1, 4, 4), targets), 0))
    assert sorted(kept.images) == [0, 1, 2] and kept.passed_over == {3, 4}
    assert [len(images) for images in kept.images.values()] == [24, 24, 24]
    assert [int(image[0, 0, 0]) for image in kept.images[1]] == list(range(1, 121, 5))


def test_features_are_kept_of_annotated_images_and_no_more_than_fit(monkeypatch):
    monkeypatch.setattr("attribguard.auditing.pools._FEATURE_BYTES", 4 * 8 * 3)
    kept = FeaturePool()
    regions = torch.ones(5, 8, 8, dtype=torch.bool)
    regions[1] = False
    kept.add(torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 2, 2), regions)
    assert [float(maps[0, 0, 0]) for maps in kept.features] == [0, 2, 3] and kept.full


class TwoPatches(nn.Module):
    """Reads two pixels, and has no dropout."""

    def forward(self, x):
        evidence = x[:, 0, 0, 0] * 8 - x[:, 0, 7, 7] * 8
        return torch.stack([-evidence, evidence], 1)

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))


class Noisy(TwoPatches):
    """Reads every pixel a little."""

    def forward(self, x):
        weight = torch.linspace(1, -1, 64).view(8, 8)
        evidence = (x[:, 0] * weight).sum((1, 2)) + 4 * (x[:, 0, 0, 0] - x[:, 0, 7, 7])
        return torch.stack([-evidence, evidence], 1)


def test_a_network_without_dropout_is_scanned_by_its_plain_certainty():
    scan = scan_pool(TwoPatches(), pool(), 0)
    assert scan.passes == 1 and (scan.rows, scan.columns, scan.patch) == (8, 8, 1)
    assert [(pair.source, pair.target) for pair in scan.pairs] == [(0, 1), (1, 0)]


def test_the_patch_that_decides_is_named_and_no_other():
    class Decoy(TwoPatches):
        def forward(self, x):
            # A quarter is bright in both classes; only where it is bright tells them apart, here by one corner alone.
            evidence = 6 * (x[:, 0, 0, 0] - 0.5)
            return torch.stack([-evidence, evidence], 1)

    scan = scan_pool(Decoy(), pool(), 0)
    assert {(pair.source, place) for pair, place in scan.suspects()} <= {(0, 0), (1, 0)}
    drop = {pair.source: pair.drop for pair in scan.pairs}
    expected = torch.tensor([3.0]).mul(2).sigmoid().item() - torch.tensor([-3.0]).mul(2).sigmoid().item()
    for source in (0, 1):
        assert drop[source][0] == pytest.approx(expected, abs=1e-4)
        assert max(map(abs, drop[source][1:])) == pytest.approx(0, abs=1e-6)


def test_p_values_are_those_of_the_scan_of_all_pairs_corrected():
    options = {"sources": 12, "targets": 6, "patch_size": 1, "passes": 1, "generator": 0, "progress": False}
    expected = scan_classes(Noisy(), pool().items, **options).suspects(alpha=1.0, min_drop=0.0)
    found = scan_pool(Noisy(), pool(), 0)
    p_values = {(pair.source, place): p for pair in found.pairs for place, p in enumerate(pair.p_values)}
    assert len(expected) > 3
    for one in expected:
        assert p_values[one.source_class, one.position] == pytest.approx(one.p_value)


def test_suspects_need_both_a_drop_and_a_small_p():
    pair = PairFigure(0, 1, [0.5, 0.05, 0.9, 0.3], [0.001, 0.001, 0.2, 0.01], "")
    scan = Scan([pair, PairFigure(1, 0, [], [], "none")], 2, 2, 4, 1)
    assert [place for _, place in scan.suspects()] == [0, 3]


def test_one_class_cannot_be_scanned():
    kept = ScanPool()
    kept.add(read_batch((torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.long)), 0))
    with pytest.raises(DataError, match=r"1 class\(es\)"):
        scan_pool(Corner(), kept, 0)
