"""Two processes with unequal shares of the images give what one process gives."""

import pytest
import torch
from torchmetrics import MetricCollection

from attribguard.probes.compare import compare
from attribguard.probes.localisation import EnergyInside, IoBB, IoR, PointingGame, SoftIoBB, SoftIoR
from tests.two_processes import run_two

N = 30
# Batches of images for each of the two processes; the second of "uneven" never sees a region.
SHARES = {
    "uneven": ([range(9), range(9, 16), range(16, 27)], [range(27, 30)]),
    "empty": ([range(20), range(20, 30)], []),
    "empty first": ([], [range(30)]),
}


def data():
    source = torch.Generator().manual_seed(0)
    maps = torch.rand(2, N, 6, 6, generator=source)
    masks = torch.rand(N, 6, 6, generator=source) < 0.4
    masks[::4] = masks[27:] = False
    maps[:, 3] = 0.5
    return maps, masks


def make():
    draws = {"n_resamples": 100}
    return MetricCollection(
        {
            "iobb": SoftIoBB(**draws),
            "max": SoftIoBB(normalize="max"),
            "ior": IoR([0.3, 0.8], **draws),
            "tip": PointingGame(2, **draws),
            "soft ior": SoftIoR(**draws),
            "hard iobb": IoBB([0.2, 0.6], **draws),
            "energy": EnergyInside(**draws),
        }
    )


def flat(summaries):
    """Those of a metric with several thresholds each by its own name."""
    parts = {name: part if isinstance(part, dict) else {name: part} for name, part in summaries.items()}
    return {key: summary for part in parts.values() for key, summary in part.items()}


def held_here(collection):
    return [sum(map(len, metric.metric_state["groups"])) for metric in collection.values()]


def measure(batches):
    maps, masks = data()
    first, second = make(), make()
    for rows in map(list, batches):
        labels = {"classes": [row % 3 for row in rows], "groups": [f"patient {row // 4}" for row in rows]}
        for network, collection in enumerate((first, second)):
            collection.update(maps[network, rows], masks[rows], **labels)
    local = held_here(first)
    results = {name: value.item() for name, value in first.compute().items()}
    summaries = flat({name: metric.summary() for name, metric in first.items() if name != "max"})
    result = compare(first["iobb"], second["iobb"], n_resamples=100)
    assert local == held_here(first), "the states are local again"
    return results, summaries, result, sorted(first["max"].per_image().values.nan_to_num(-1).tolist())


def measure_shares(rank):
    return {name: measure(share[rank]) for name, share in SHARES.items()}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return run_two(measure_shares, folder=tmp_path_factory.mktemp("two"))


def counts(estimate):
    return estimate.n, estimate.skipped, estimate.groups


def figures(estimate):
    return pytest.approx([estimate.value, *estimate.interval], abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("share", SHARES)
def test_two_processes_equal_one(two_processes, share):
    results, summaries, comparison, held = measure([range(N)])
    for ours, ours_summaries, ours_comparison, ours_held in (process[share] for process in two_processes):
        assert ours == pytest.approx(results, abs=1e-6)
        assert list(ours_summaries) == list(summaries)
        for name, expected in summaries.items():
            summary = ours_summaries[name]
            assert counts(summary) == counts(expected)
            assert [summary.value, *summary.interval] == figures(expected)
            assert list(summary.per_class) == list(expected.per_class)
            for index, part in expected.per_class.items():
                assert counts(summary.per_class[index]) == counts(part)
                assert [summary.per_class[index].value, *summary.per_class[index].interval] == figures(part)
            assert summary.without_region == expected.without_region == 10
        assert counts(ours_comparison) == counts(comparison)
        assert [ours_comparison.value, *ours_comparison.interval] == figures(comparison)
        assert ours_comparison.p_value == comparison.p_value
        assert ours_held == pytest.approx(held)
