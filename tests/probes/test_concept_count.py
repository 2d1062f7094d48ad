"""Concept counts against loops over single maps, their intervals, and life as a torchmetrics metric."""

import copy
import math
import pickle

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torchmetrics import MetricCollection

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.probes.activation_quantile import ActivationQuantile
from attribguard.probes.concept_count import ConceptCount
from attribguard.probes.interval import Resampling, Units, mean_interval
from tests.probes import concept_oracles as slow

DRAWS = {"n_resamples": 60}
IMAGE = (12, 8)


def batch(n=12, units=5, cells=(6, 4), image=IMAGE):
    """Features, a threshold a unit, and masks of the image of which every fourth is empty."""
    features = torch.randn(n, units, *cells)
    masks = torch.zeros(n, *image, dtype=torch.bool)
    for i in range(n):
        if i % 4:
            masks[i, i % 5 : i % 5 + 4, i % 3 : i % 3 + 1 + i % 4] = True
    return features, torch.rand(units) + 0.2, masks


def table(features, thresholds, masks, connectivity=8, size="map"):
    return slow.counts(features.numpy(), thresholds.numpy(), masks.numpy(), connectivity, size)


@pytest.mark.parametrize("size", ["map", "input"])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_counts_are_those_of_single_maps(connectivity, size):
    features, thresholds, masks = batch()
    metric = ConceptCount(thresholds, connectivity, size=size, image_size=IMAGE, **DRAWS)
    for rows in (slice(0, 5), slice(5, 6), slice(6, 12)):
        metric.update(features[rows], masks[rows])
    expected = table(features, thresholds, masks, connectivity, size)
    assert expected.max() > 1, "there is a map with two"
    result = metric.compute()
    assert list(result) == ["disjoint", "unique"] and all(mean.shape == () for mean in result.values())
    assert result["disjoint"].item() == pytest.approx(expected.sum(1).mean())
    assert result["unique"].item() == pytest.approx((expected > 0).sum(1).mean())
    summary = metric.summary()
    assert summary.disjoint.value == pytest.approx(expected.sum(1).mean())
    assert summary.unique.value == pytest.approx((expected > 0).sum(1).mean())
    assert summary.disjoint_per_unit.tolist() == expected.sum(0).tolist()
    assert summary.unique_per_unit.tolist() == (expected > 0).sum(0).tolist()
    assert (summary.disjoint.n, summary.disjoint.skipped, summary.without_region) == (9, 3, 3)


def test_the_ways_of_counting_differ():
    """Else the test above would not tell them apart."""
    features, thresholds, masks = batch()
    ways = [table(features, thresholds, masks, *way) for way in ((4, "map"), (8, "map"), (8, "input"))]
    assert len({int(way.sum()) for way in ways}) == 3


@pytest.mark.parametrize("size", ["map", "input"])
def test_many_units_are_looked_at_in_parts(size, monkeypatch):
    features, thresholds, masks = batch()
    whole = ConceptCount(thresholds, size=size, image_size=IMAGE)(features, masks)
    monkeypatch.setattr("attribguard.probes.unit_maps._CELLS_AT_ONCE", 2 * 9 * 96)
    assert ConceptCount(thresholds, size=size, image_size=IMAGE)(features, masks) == whole


def test_named_thresholds_are_counted_one_by_one():
    features, thresholds, masks = batch()
    named = {"q=0.1": thresholds, "low": thresholds - 0.5}
    metric = ConceptCount(named, image_size=IMAGE, **DRAWS)
    result = metric(features, masks)
    assert list(result) == ["disjoint@q=0.1", "disjoint@low", "unique@q=0.1", "unique@low"]
    summaries = metric.summary()
    assert list(summaries) == list(named)
    for name, limits in named.items():
        alone = ConceptCount(limits, image_size=IMAGE, **DRAWS)
        expected = alone(features, masks)
        assert {kind: result[f"{kind}@{name}"] for kind in expected} == expected
        assert summaries[name].disjoint == alone.summary().disjoint and summaries[name].threshold == name
        assert torch.equal(summaries[name].disjoint_per_unit, alone.summary().disjoint_per_unit)
        assert name in str(summaries[name])


def test_thresholds_of_the_activation_quantile_are_taken_as_they_are():
    features, _, masks = batch(40)
    quantile = ActivationQuantile(total=960)
    quantile.update(features)
    limits = quantile.compute()
    result = ConceptCount(limits, image_size=IMAGE)(features, masks)
    for name, thresholds in limits.items():
        expected = table(features, thresholds, masks)
        assert result[f"disjoint@{name}"].item() == pytest.approx(expected.sum(1).mean())
    assert result["unique@q=0.1"] > result["unique@q=0.005"]
    for q in (0.1, (0.1, 0.2)):
        assert ConceptCount(ActivationQuantile(q, total=960)(features[:, :1]))(features[:, :1], torch.ones(40, 6, 4))


def test_a_dead_unit_has_no_concept():
    features = torch.rand(3, 2, 4, 4)
    features[:, 0] = 0
    thresholds = ActivationQuantile(0.1, total=48)(features)
    metric = ConceptCount(thresholds)
    metric.update(features, torch.ones(3, 4, 4))
    assert metric.summary().disjoint_per_unit[0] == 0 and metric.summary().disjoint_per_unit[1] > 0


def test_a_region_covers_every_cell_that_it_overlaps():
    features = torch.zeros(1, 1, 7, 7)
    features[..., 3, 3] = 1
    for box, count in (([32 * 4 - 1, 32 * 4 - 1, 224, 224], 1), ([32 * 4, 0, 224, 224], 0), ([100, 100, 101, 101], 1)):
        assert ConceptCount(torch.tensor([0.5]), image_size=(224, 224))(features, [[box]])["disjoint"] == count


def test_regions_are_boxes_or_masks_of_the_image_or_of_the_map():
    features, thresholds, _ = batch(3)
    boxes = [[[0, 1, 3, 7]], [[0, 0, 2, 2], [3, 3, 6, 9]], []]
    masks = torch.zeros(3, *IMAGE)
    masks[0, 1:7, 0:3] = masks[1, 0:2, 0:2] = masks[1, 3:9, 3:6] = 1
    expected = ConceptCount(thresholds, image_size=IMAGE)(features, boxes)
    assert ConceptCount(thresholds, image_size=IMAGE)(features, masks[:, None]) == expected
    on_map = torch.from_numpy(np.stack([slow.covered(mask.numpy(), (6, 4)) > 0 for mask in masks]))
    assert ConceptCount(thresholds)(features, on_map) == expected


def test_intervals_are_over_groups_and_classes_stand_by_themselves():
    features, thresholds, masks = batch(40)
    classes, groups = torch.arange(40) % 3 + 5, [f"patient {i // 4}" for i in range(40)]
    metric = ConceptCount(thresholds, image_size=IMAGE, interval=0.9, seed=4, **DRAWS)
    for rows in (slice(0, 17), slice(17, 40)):
        metric.update(features[rows], masks[rows], classes=classes[rows], groups=groups[rows])
    summary, expected = metric.summary(), table(features, thresholds, masks)
    kept = np.array([i for i in range(40) if i % 4])
    draws = Resampling(0.9, 60, 4)
    for kind, values in (("disjoint", expected.sum(1)), ("unique", (expected > 0).sum(1))):
        whole = getattr(summary, kind)
        assert whole.interval == pytest.approx(mean_interval(Units.of(values.astype(float), kept // 4), draws))
        assert (whole.n, whole.skipped, whole.groups) == (30, 10, 10)
        assert list(summary.per_class) == [5, 6, 7]
        for index, part in summary.per_class.items():
            rows = kept % 3 + 5 == index
            assert part[kind].value == pytest.approx(values[rows].mean()) and part[kind].n == rows.sum()
            alone = mean_interval(Units.of(values[rows].astype(float), kept[rows] // 4), draws)
            assert part[kind].interval == pytest.approx(alone)
    assert "10 groups" in str(summary) and "90 % interval" in str(summary) and "10 without" in str(summary)


def test_a_metric_holds_two_numbers_an_image_and_its_labels():
    held = {}
    for images in (10, 10_000):
        metric = ConceptCount({"a": torch.zeros(3), "b": torch.ones(3)})
        for _ in range(10):
            features = torch.rand(images // 10, 3, 2, 2, requires_grad=True)
            metric.update(features, torch.ones(images // 10, 2, 2), groups=[0] * (images // 10))
        states = metric.metric_state.values()
        tensors = [tensor for state in states for tensor in (state if isinstance(state, list) else [state])]
        assert not any(tensor.requires_grad for tensor in tensors)
        held[images] = sum(tensor.untyped_storage().nbytes() for tensor in tensors)
    fixed = 8 + 8 * 2 * 2 * 3
    assert held == {images: fixed + images * (8 * 2 + 8) for images in (10, 10_000)}


@pytest.mark.parametrize("call", ["update", "forward"])
def test_a_collection_never_takes_two_settings_for_one(call):
    def make():
        low = torch.zeros(4)
        return {
            "plain": ConceptCount(low, image_size=IMAGE),
            "four": ConceptCount(low, 4, image_size=IMAGE),
            "input": ConceptCount(low, image_size=IMAGE, size="input"),
            "high": ConceptCount(low + 0.5, image_size=IMAGE),
            "named": ConceptCount({"low": low}, image_size=IMAGE),
            "other name": ConceptCount({"q": low}, image_size=IMAGE),
        }

    collection, alone = MetricCollection(make(), prefix="val/"), make()
    # In the first batch all agree: one whole map of one component, all of it in the region.
    first = torch.ones(2, 4, 6, 4), torch.ones(2, *IMAGE)
    features, _, masks = batch(units=4)
    for maps, region in (first, (features, masks)):
        getattr(collection, call)(maps, region)
        for metric in alone.values():
            metric.update(maps, region)
    assert len(collection.compute_groups) == len(alone)
    values = {name: list(metric.compute().values()) for name, metric in alone.items()}
    collected = {name: list(metric.compute().values()) for name, metric in collection.items(keep_base=True)}
    assert collected == values and values["plain"] == values["other name"]
    assert len({float(disjoint) for disjoint, _ in values.values()}) == 4, "the second batch tells them apart"


def test_a_collection_shares_the_work_of_metrics_that_differ_in_their_interval_only():
    features, thresholds, masks = batch()
    collection = MetricCollection(
        {f"{p} %": ConceptCount(thresholds, image_size=IMAGE, interval=p / 100) for p in (50, 90)}
    )
    collection.update(features, masks)
    collection.update(features, masks)
    assert len(collection.compute_groups) == 1 and collection["90 %"].summary().disjoint.n == 18


def test_forward_gives_the_batch_and_keeps_all():
    features, thresholds, masks = batch()
    metric = ConceptCount(thresholds, image_size=IMAGE, **DRAWS)
    for rows in (slice(0, 5), slice(5, 12)):
        expected = table(features[rows], thresholds, masks[rows])
        assert metric(features[rows], masks[rows])["disjoint"].item() == pytest.approx(expected.sum(1).mean())
    expected = table(features, thresholds, masks)
    assert metric.compute()["unique"].item() == pytest.approx((expected > 0).sum(1).mean())
    assert metric.summary().disjoint_per_unit.tolist() == expected.sum(0).tolist()
    metric.reset()
    assert metric.summary().disjoint.n == 0 and metric.summary().disjoint_per_unit.sum() == 0


def test_copies_and_pickles_continue():
    features, thresholds, masks = batch()
    metric = ConceptCount(thresholds, image_size=IMAGE)
    metric.update(features[:5], masks[:5])
    expected = ConceptCount(thresholds, image_size=IMAGE)(features, masks)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        other.update(features[5:], masks[5:])
        assert other.compute() == expected


def test_a_network_that_holds_the_metric_can_be_cast():
    features, thresholds, masks = batch()
    network = torch.nn.Module()
    network.count = ConceptCount(thresholds, image_size=IMAGE)
    network.half()
    assert network.count(features, masks) == ConceptCount(thresholds, image_size=IMAGE)(features, masks)
    assert network.state_dict() == {}


def test_before_any_image_and_without_any_region_the_result_is_nan():
    metric = ConceptCount({"a": torch.zeros(2)})
    with pytest.warns(UserWarning, match="before"):
        result = metric.compute()
    assert list(result) == ["disjoint@a", "unique@a"] and all(mean.isnan() for mean in result.values())
    metric.update(torch.rand(3, 2, 4, 4), [[], [], []], groups=[1, 2, 3])
    metric.update(torch.rand(0, 2, 4, 4), torch.zeros(0, 4, 4))
    assert metric.compute()["disjoint@a"].isnan() and metric.compute()["disjoint@a"].shape == ()
    summary = metric.summary()["a"]
    assert math.isnan(summary.disjoint.value) and (summary.disjoint.n, summary.without_region) == (0, 3)
    metric.update(torch.rand(1, 2, 4, 4), torch.ones(1, 4, 4), groups=[1])
    assert metric.compute()["disjoint@a"] == 2, "labels after a result without images are welcome"


FEATURES = torch.rand(2, 3, 4, 4)
BOXES = [[[0, 0, 2, 2]], [[1, 1, 4, 4]]]


@pytest.mark.parametrize(
    ("features", "region", "kind"),
    [
        (FEATURES.long(), BOXES, TypeMismatchError),
        (FEATURES[0], BOXES, ShapeError),
        (FEATURES.permute(0, 2, 3, 1), BOXES, ShapeError),
        (FEATURES / 0, BOXES, RangeError),
        (FEATURES[:, :2], BOXES, ShapeError),
        (FEATURES, BOXES[:1], ShapeError),
        (FEATURES, torch.ones(2, 8, 8), ShapeError),
        (FEATURES, torch.full((2, 4, 4), float("nan")), RangeError),
        (FEATURES, torch.full((2, 4, 4), 255.0), RangeError),
        (FEATURES, [[[0, 0, 2, 2]], [[1, 1, 1, 4]]], RangeError),
        (FEATURES, [[[0, 0, 2, 2]], [[1, 1, 4, 5]]], RangeError),
        (FEATURES, "boxes", TypeMismatchError),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(features, region, kind):
    metric = ConceptCount(torch.zeros(3))
    metric.update(FEATURES, BOXES)
    before = metric.summary()
    with pytest.raises(kind):
        metric.update(features, region)
    assert str(metric.summary()) == str(before) and metric.summary().disjoint.n == 2


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({}, RangeError),
        ({"groups": ["a"]}, ShapeError),
        ({"groups": ["a", "b"], "classes": [0, 1]}, RangeError),
        ({"groups": ["a", "b"], "classes": [0, -1]}, RangeError),
    ],
)
def test_bad_or_missing_labels_are_refused_and_change_nothing(labels, kind):
    metric = ConceptCount(torch.zeros(3))
    metric.update(FEATURES, BOXES, groups=["a", "b"])
    with pytest.raises(kind):
        metric.update(FEATURES, BOXES, **labels)
    assert metric.summary().disjoint.n == 2 and metric.summary().disjoint.groups == 2


LIMITS = torch.zeros(3)


@pytest.mark.parametrize(
    ("thresholds", "settings", "kind"),
    [
        ([0.0, 0.0], {}, TypeMismatchError),
        (torch.zeros(3, dtype=torch.int64), {}, TypeMismatchError),
        (torch.zeros(2, 3), {}, ShapeError),
        (torch.zeros(0), {}, ShapeError),
        (torch.tensor([0.0, float("nan")]), {}, RangeError),
        (torch.tensor([0.0, float("inf")]), {}, RangeError),
        ({}, {}, RangeError),
        ({"a": LIMITS, "b": torch.zeros(2)}, {}, ShapeError),
        ({1: LIMITS, "1": LIMITS}, {}, RangeError),
        (LIMITS, {"connectivity": 6}, RangeError),
        (LIMITS, {"size": "image"}, RangeError),
        (LIMITS, {"size": "input"}, RangeError),
        (LIMITS, {"image_size": 224}, RangeError),
        (LIMITS, {"image_size": (224, 0)}, RangeError),
        (LIMITS, {"interval": 95}, RangeError),
    ],
)
def test_settings_outside_their_range_are_refused(thresholds, settings, kind):
    with pytest.raises(kind):
        ConceptCount(thresholds, **settings)


def test_the_pictures_show_the_counts_of_thresholds_and_of_units():
    features, thresholds, masks = batch(units=25)
    metric = ConceptCount({"low": thresholds - 0.5, "high": thresholds}, image_size=IMAGE, **DRAWS)
    result = metric(features, masks)
    figure, given = plt.subplots()
    drawn, ax = metric.plot(ax=given)
    assert drawn is figure and ax is given
    assert [bar.get_height() for bar in ax.patches] == [float(mean) for mean in result.values()]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["low", "high"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["disjoint", "unique"]
    single = ConceptCount(thresholds, image_size=IMAGE)
    made, axes = single.plot(single(features, masks))
    assert made is not figure and len(axes.patches) == 2
    summary = metric.summary()["low"]
    (per_unit,) = summary.plot().axes
    counts = summary.disjoint_per_unit.tolist()
    shown = [int(label.get_text()) for label in per_unit.get_xticklabels()]
    assert len(shown) == 20 and [counts[unit] for unit in shown] == sorted(counts, reverse=True)[:20]
    heights = [bar.get_height() for bar in per_unit.patches]
    assert heights == [counts[unit] for unit in shown] + [summary.unique_per_unit[unit].item() for unit in shown]
    assert "low" in per_unit.get_xlabel() and "9 images" in per_unit.get_ylabel()
    assert summary.plot(given, units=3) is figure
    plt.close(figure)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_features_on_a_gpu_take_regions_and_labels_from_anywhere(device):
    features, thresholds, masks = batch()
    metric = ConceptCount(thresholds.cuda(), image_size=IMAGE, **DRAWS).to(device)
    for there in ("cpu", "cuda"):
        metric.update(features.cuda(), masks.to(there), classes=torch.arange(12, device=there), groups=["a"] * 12)
    assert metric.compute()["disjoint"].device.type == device
    assert metric.summary().disjoint_per_unit.tolist() == (2 * table(features, thresholds, masks).sum(0)).tolist()
