"""Thresholds, counts and overlaps of two processes with unequal shares are those of one."""

import math

import pytest
import torch

from attribguard.errors import RangeError
from attribguard.probes.activation_quantile import ActivationQuantile
from attribguard.probes.concept_count import ConceptCount
from attribguard.probes.unit_alignment import UnitAlignment
from tests.two_processes import run_two

N, UNITS, CELLS = 60, 6, 64
# Batches of images for each of the two processes; the second of "uneven" never sees a region, both of "both" do.
SHARES = {
    "uneven": ([range(20), range(20, 31), range(31, 54)], [range(54, 60)]),
    "empty": ([range(40), range(40, 60)], []),
    "empty first": ([], [range(60)]),
    "both": ([range(24)], [range(24, 40), range(40, 60)]),
}


def data():
    source = torch.Generator().manual_seed(0)
    features = torch.randn(N, UNITS, 8, 8, generator=source)
    masks = torch.rand(N, 16, 16, generator=source) < 0.02
    masks[::4] = masks[54:] = False
    return features, masks


def quantiles():
    rows = 600
    return {
        "exact": ActivationQuantile(total=N * CELLS),
        "sketch": ActivationQuantile(max_bytes=4 * rows * (UNITS + 1)),
        "too many": ActivationQuantile(0.1, total=5 * CELLS),
    }


def measure(batches):
    features, masks = data()
    thresholds = {"low": torch.full((UNITS,), 0.5), "high": torch.linspace(0.8, 1.2, UNITS)}
    settings = {"image_size": (16, 16)}
    count = ConceptCount(thresholds, n_resamples=60, **settings)
    overlap = UnitAlignment(thresholds, **settings)
    metrics = quantiles()
    metrics["too many"].update(features[:3])
    for rows in map(list, batches):
        for name in ("exact", "sketch"):
            metrics[name].update(features[rows])
        labels = {"classes": [row % 3 for row in rows], "groups": [f"patient {row // 4}" for row in rows]}
        count.update(features[rows], masks[rows], **labels)
        overlap.update(features[rows], masks[rows])

    def held():
        return int(metrics["exact"].count), sum(map(len, count.metric_state["groups"]))

    local, squares = held(), float(metrics["sketch"].squares)
    found = {name: metrics[name].compute() for name in ("exact", "sketch")}
    errors = [metrics[name].rank_error(1 - 1e-4) for name in ("exact", "sketch")]
    summaries = count.summary()
    counts = {name: (part.disjoint_per_unit, part.unique_per_unit) for name, part in summaries.items()}
    estimates = {name: (part.disjoint, part.unique, part.per_class) for name, part in summaries.items()}
    try:
        metrics["too many"].compute()
        refused = None
    except RangeError as error:
        refused = str(error)
    results = {"count": count.compute(), "overlap": overlap.compute(), "refused": refused, "squares": squares}
    assert local == held(), "the states are local again"
    return found, errors, counts, estimates, results


def measure_shares(rank):
    return {name: measure(share[rank]) for name, share in SHARES.items()}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return run_two(measure_shares, folder=tmp_path_factory.mktemp("two"))


def figures(part):
    return [part.value, *part.interval, part.n, part.skipped, part.groups]


@pytest.mark.parametrize("share", SHARES)
def test_two_processes_equal_one(two_processes, share):
    found, _, counts, estimates, results = measure([range(N)])
    for ours, _, our_counts, our_estimates, our_results in (process[share] for process in two_processes):
        assert ours["exact"].keys() == found["exact"].keys()
        assert all(torch.equal(ours["exact"][name], limits) for name, limits in found["exact"].items())
        for name, (disjoint, unique, per_class) in estimates.items():
            assert all(map(torch.equal, our_counts[name], counts[name]))
            our_disjoint, our_unique, our_per_class = our_estimates[name]
            assert figures(our_disjoint) == pytest.approx(figures(disjoint), abs=1e-6)
            assert figures(our_unique) == pytest.approx(figures(unique), abs=1e-6)
            assert list(our_per_class) == list(per_class) == [0, 1, 2]
            for index, part in per_class.items():
                for kind, estimate in part.items():
                    assert figures(our_per_class[index][kind]) == pytest.approx(figures(estimate), abs=1e-6)
        assert our_results["count"] == results["count"]
        for name, expected in results["overlap"].items():
            torch.testing.assert_close(our_results["overlap"][name], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("share", SHARES)
def test_a_joined_sketch_keeps_its_bound(two_processes, share):
    values = data()[0].transpose(0, 1).flatten(1)
    for ours, (exact_error, error), *_ in (process[share] for process in two_processes):
        assert exact_error == 0 < error < 0.02
        for q, found in ours["sketch"].items():
            above = (values > found[:, None]).double().mean(1)
            assert (above - float(q[2:])).abs().max() <= error + 1 / values.shape[1]


def test_a_joined_sketch_is_as_uncertain_as_its_parts_together(two_processes):
    """The bound is the root of a sum over all that was rounded, in either process and when they are joined."""
    (_, (_, error), *_), _ = (process["both"] for process in two_processes)
    parts = [process["both"][-1]["squares"] for process in two_processes]
    assert min(parts) > 0
    assert (error * N * CELLS) ** 2 / (2 * math.log(2 / 1e-4)) >= sum(parts) * (1 - 1e-9)


def test_both_processes_have_the_same_sketch(two_processes):
    for share in SHARES:
        first, second = (process[share][0]["sketch"] for process in two_processes)
        assert all(torch.equal(limits, second[name]) for name, limits in first.items())


def test_more_values_than_the_total_are_seen_when_the_processes_are_joined(two_processes):
    assert measure([range(N)])[-1]["refused"] is None
    for process in two_processes:
        assert all(f"got {6 * CELLS} activations" in process[share][-1]["refused"] for share in SHARES)


def test_the_data_put_every_measure_to_the_test():
    *_, counts, _, results = measure([range(N)])
    assert all(tensor.min() > 0 for pair in counts.values() for tensor in pair)
    assert all(math.isfinite(mean) for mean in results["count"].values())
