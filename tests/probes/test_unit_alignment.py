"""Each unit's overlap with the region against loops over images."""

import matplotlib.pyplot as plt
import pytest
import torch
from torchmetrics import MetricCollection

from attribguard.errors import RangeError, ShapeError
from attribguard.probes.concept_count import ConceptCount
from attribguard.probes.unit_alignment import UnitAlignment
from tests.probes import concept_oracles as slow

IMAGE = (12, 8)


def batch(n=12, units=5, cells=(6, 4)):
    features, masks = torch.randn(n, units, *cells), torch.zeros(n, *IMAGE, dtype=torch.bool)
    for i in range(n):
        if i % 4:
            masks[i, i % 5 : i % 5 + 5, i % 3 : i % 3 + 2 + i % 4] = True
    return features, torch.rand(units) - 0.2, masks


def overlaps(features, thresholds, masks, size="map"):
    return slow.overlaps(features.numpy(), thresholds.numpy(), masks.numpy(), size)


@pytest.mark.parametrize("size", ["map", "input"])
def test_areas_are_summed_over_images_before_the_ratio(size):
    features, thresholds, masks = batch()
    metric = UnitAlignment(thresholds, size=size, image_size=IMAGE)
    for rows in (slice(0, 5), slice(5, 6), slice(6, 12)):
        batch_alone = metric(features[rows], masks[rows])
        assert batch_alone.tolist() == pytest.approx(overlaps(features[rows], thresholds, masks[rows], size), abs=1e-6)
    result = metric.compute()
    assert result.shape == (5,) and result.dtype == torch.float32
    assert result.tolist() == pytest.approx(overlaps(features, thresholds, masks, size), abs=1e-6)
    assert metric.without_region == 3 and 0.1 < result.min() < result.max() < 0.9


def test_the_two_sizes_differ():
    features, thresholds, masks = batch()
    assert overlaps(features, thresholds, masks) != pytest.approx(
        overlaps(features, thresholds, masks, "input"), abs=1e-3
    )


@pytest.mark.parametrize("size", ["map", "input"])
def test_many_units_are_looked_at_in_parts(size, monkeypatch):
    features, thresholds, masks = batch()
    whole = UnitAlignment(thresholds, size=size, image_size=IMAGE)(features, masks)
    monkeypatch.setattr("attribguard.probes.unit_maps._CELLS_AT_ONCE", 2 * 9 * 96)
    assert torch.equal(UnitAlignment(thresholds, size=size, image_size=IMAGE)(features, masks), whole)


def test_a_unit_that_is_the_region_overlaps_all_of_it_and_a_dead_one_nothing():
    masks = batch()[2]
    features = torch.stack([masks.float(), torch.zeros(12, *IMAGE), 1 - masks.float()], 1)
    assert UnitAlignment(torch.tensor([0.5, 0.0, 0.5]))(features, masks).tolist() == [1, 0, 0]


def test_named_thresholds_are_measured_one_by_one():
    features, thresholds, masks = batch()
    named = {"q=0.1": thresholds, "low": thresholds - 0.5}
    result = UnitAlignment(named, image_size=IMAGE)(features, masks)
    assert list(result) == ["iou@q=0.1", "iou@low"]
    for name, limits in named.items():
        assert torch.equal(result[f"iou@{name}"], UnitAlignment(limits, image_size=IMAGE)(features, masks))


def test_without_any_region_the_result_is_nan():
    metric = UnitAlignment(torch.zeros(2))
    with pytest.warns(UserWarning, match="before"):
        assert metric.compute().isnan().all()
    metric.update(torch.rand(3, 2, 4, 4), [[], [], []])
    assert metric.compute().isnan().all() and metric.without_region == 3


def test_memory_does_not_grow_with_the_images():
    held = {}
    for images in (10, 10_000):
        metric = UnitAlignment(torch.zeros(3))
        for _ in range(10):
            metric.update(torch.rand(images // 10, 3, 2, 2, requires_grad=True), torch.ones(images // 10, 2, 2))
        assert not any(state.requires_grad for state in metric.metric_state.values())
        held[images] = sum(state.untyped_storage().nbytes() for state in metric.metric_state.values())
    assert held[10] == held[10_000] == 8 + 2 * 3 * 8


@pytest.mark.parametrize(
    ("features", "region", "kind"),
    [
        (torch.rand(2, 3, 4, 4) / 0, torch.ones(2, 4, 4), RangeError),
        (torch.rand(2, 2, 4, 4), torch.ones(2, 4, 4), ShapeError),
        (torch.rand(2, 3, 4, 4), torch.ones(2, 5, 5), ShapeError),
        (torch.rand(2, 3, 4, 4), [[[0, 0, 4, 4]], [[2, 2, 2, 4]]], RangeError),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(features, region, kind):
    metric = UnitAlignment(torch.full((3,), 0.5))
    good = torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4)
    before = metric(*good)
    with pytest.raises(kind):
        metric.update(features, region)
    assert torch.equal(metric.compute(), before)


def test_a_collection_never_takes_two_settings_for_one():
    def make():
        low = torch.zeros(5)
        return {
            "plain": UnitAlignment(low, image_size=IMAGE),
            "input": UnitAlignment(low, image_size=IMAGE, size="input"),
            "high": UnitAlignment(low + 0.5, image_size=IMAGE),
        }

    collection, alone = MetricCollection(make()), make()
    features, _, masks = batch()
    for maps, region in ((torch.ones(2, 5, 6, 4), torch.ones(2, *IMAGE)), (features, masks)):
        collection.update(maps, region)
        for metric in alone.values():
            metric.update(maps, region)
    assert len(collection.compute_groups) == 3
    for name, metric in alone.items():
        assert torch.equal(collection[name].compute(), metric.compute())


def test_a_collection_can_hold_it_beside_the_counts():
    features, thresholds, masks = batch()
    named = {"q=0.1": thresholds}
    collection = MetricCollection([ConceptCount(named, image_size=IMAGE), UnitAlignment(named, image_size=IMAGE)])
    collection.update(features, masks, classes=[0] * 12)
    assert set(collection.compute()) == {"disjoint@q=0.1", "unique@q=0.1", "iou@q=0.1"}


def test_the_picture_shows_the_units_of_the_largest_overlap():
    features, thresholds, masks = batch(units=25)
    metric = UnitAlignment({"high": thresholds, "low": thresholds - 0.5}, image_size=IMAGE)
    result = metric(features, masks)
    figure, given = plt.subplots()
    drawn, ax = metric.plot(ax=given)
    assert drawn is figure and ax is given
    shown = [int(label.get_text()) for label in ax.get_xticklabels()]
    assert shown == result["iou@high"].argsort(descending=True)[:20].tolist()
    heights = [result[name][unit].item() for name in result for unit in shown]
    assert [bar.get_height() for bar in ax.patches] == heights
    single = UnitAlignment(thresholds[:1], image_size=IMAGE)
    made, axes = single.plot(single(features[:, :1], masks), units=3)
    assert made is not figure and len(axes.patches) == 1
    plt.close(figure)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_features_on_a_gpu_give_the_same(device):
    features, thresholds, masks = batch()
    metric = UnitAlignment(thresholds, image_size=IMAGE).to(device)
    assert metric(features.cuda(), masks).tolist() == pytest.approx(overlaps(features, thresholds, masks), abs=1e-6)
    assert metric.compute().device.type == device
