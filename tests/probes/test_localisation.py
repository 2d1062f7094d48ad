"""The localisation metrics: means over images, what is left out, and life as a torchmetrics metric."""

import math
import pickle
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torchmetrics
from torchmetrics import MetricCollection

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.probes.interval import Resampling, Units, mean_interval
from attribguard.probes.localisation import EnergyInside, IoBB, IoR, PointingGame, SoftIoBB, SoftIoR
from attribguard.probes.localisation_metric import LocalisationMetric
from tests.functional import localisation_oracles as slow

DRAWS = {"n_resamples": 60}
MODES = ["minmax", "max", "none"]
NAN = float("nan")


def batch(n=12, size=6, signed=True):
    """Maps, and masks of which every fourth is empty."""
    maps = torch.randn(n, size, size) if signed else torch.rand(n, size, size)
    masks = torch.rand(n, size, size) < 0.4
    masks[::4] = False
    return maps, masks


def by_loops(measure, maps, masks, mode):
    """One number for each image with a region."""
    rows = zip(maps.tolist(), masks.tolist(), strict=True)
    return [measure(slow.normalized(cam, mode), mask) for cam, mask in rows if any(map(any, mask))]


METRICS = {
    "iobb": (SoftIoBB, lambda cam, mask: slow.overlap(cam, mask, "region")),
    "ior": (SoftIoR, lambda cam, mask: slow.overlap(cam, mask, "map")),
    "pointing": (PointingGame, lambda cam, mask: slow.pointing(cam, mask, 0)),
    "near": (lambda **settings: PointingGame(3, **settings), lambda cam, mask: slow.pointing(cam, mask, 3)),
    "energy": (EnergyInside, slow.energy),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", METRICS)
def test_the_result_is_the_mean_over_images_with_a_region(name, mode):
    make, oracle = METRICS[name]
    maps, masks = batch(signed=mode != "none")
    metric = make(normalize=mode, **DRAWS)
    for rows in (slice(0, 5), slice(5, 6), slice(6, 12)):
        metric.update(maps[rows], masks[rows])
    expected = by_loops(oracle, maps, masks, mode)
    result = metric.compute()
    assert result.shape == () and result.item() == pytest.approx(np.mean(expected), abs=1e-6)
    summary = metric.summary()
    assert summary.value == pytest.approx(np.mean(expected), abs=1e-6)
    assert (summary.n, summary.skipped, summary.without_region, summary.groups) == (9, 3, 3, None)
    assert summary.normalize == mode and summary.metric == metric.label
    assert metric.per_image().values.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("kind", "per"), [(IoBB, "region"), (IoR, "map")])
@pytest.mark.parametrize("mode", MODES)
def test_thresholds_are_measured_one_by_one(kind, per, mode):
    maps, masks = batch(signed=mode != "none")
    thresholds = (0.1, 0.5, 0.99)
    metric = kind(thresholds, normalize=mode, **DRAWS)
    metric.update(maps, masks, classes=list(range(12)))
    result, summaries = metric.compute(), metric.summary()
    assert list(result) == list(summaries) == [f"{kind.__name__}@{t:g}" for t in thresholds]
    for threshold, (name, mean) in zip(thresholds, result.items(), strict=True):
        expected = by_loops(lambda cam, mask, t=threshold: slow.overlap_at(cam, mask, t, per), maps, masks, mode)
        assert mean.shape == () and mean.item() == pytest.approx(np.nanmean(expected), abs=1e-6)
        undefined = int(np.isnan(expected).sum())
        assert summaries[name].value == pytest.approx(np.nanmean(expected), abs=1e-6)
        assert (summaries[name].n, summaries[name].skipped) == (9 - undefined, 3 + undefined)
        assert summaries[name].metric == name and len(summaries[name].per_class) == 9


def test_forward_gives_the_batch_and_keeps_the_whole():
    (first, there), (second, here) = batch(), batch()
    metric, whole = SoftIoBB(), SoftIoBB()
    one, two = metric(first, there, groups=["a"] * 12), metric(second, here, groups=["b"] * 12)
    for alone, (maps, masks) in ((one, (first, there)), (two, (second, here))):
        other = SoftIoBB()
        other.update(maps, masks)
        assert alone == other.compute()
    whole.update(torch.cat([first, second]), torch.cat([there, here]))
    torch.testing.assert_close(metric.compute(), whole.compute())
    assert metric.summary().groups == 2 and metric.summary().n == 18
    metric.reset()
    metric.update(first, there)
    assert metric.compute() == one and metric.summary().without_region == 3


def test_flat_maps_are_counted_and_not_averaged():
    maps, masks = torch.rand(4, 3, 3), torch.ones(4, 3, 3)
    masks[:, 0] = 0
    maps[1], maps[2] = 0.7, 0
    for mode in MODES:
        for metric in (SoftIoBB(normalize=mode), SoftIoR(normalize=mode), PointingGame(normalize=mode)):
            metric.update(maps, masks)
            summary = metric.summary()
            assert (summary.n, summary.skipped, summary.without_region) == (2, 2, 0)
            assert metric.per_image().values.isnan().tolist() == [False, True, True, False]
            assert not metric.compute().isnan()


def test_a_map_without_positive_evidence_is_left_out_under_max_alone():
    maps, mask = -torch.rand(1, 3, 3), torch.eye(3)[None]
    assert [metric(maps, mask).isnan().item() for metric in (SoftIoBB(normalize="max"), SoftIoBB())] == [True, False]


def test_boxes_and_masks_are_the_same_region():
    maps, masks = torch.rand(2, 4, 5), torch.zeros(2, 4, 5)
    masks[0, 1:3, 0:2] = masks[0, 0:1, 4:5] = 1
    assert SoftIoBB()(maps, [[[0, 1, 2, 3], [4, 0, 5, 1]], []]) == SoftIoBB()(maps, masks)


def test_each_class_by_itself_is_what_its_images_alone_give():
    maps, masks = batch(40)
    classes, groups = torch.arange(40) % 3 + 5, torch.arange(40) // 4
    metric = SoftIoR(**DRAWS)
    for rows in (slice(0, 17), slice(17, 40)):
        metric.update(maps[rows], masks[rows], classes=classes[rows], groups=groups[rows])
    per_class = metric.summary().per_class
    assert list(per_class) == [5, 6, 7]
    for index, part in per_class.items():
        alone = SoftIoR(**DRAWS)
        rows = (classes == index) & masks.flatten(1).any(1)
        alone.update(maps[rows], masks[rows], groups=groups[rows])
        whole = alone.summary()
        assert [part.value, *part.interval] == pytest.approx([whole.value, *whole.interval])
        assert (part.n, part.skipped, part.groups) == (whole.n, 0, whole.groups)
    assert sum(part.n for part in per_class.values()) == metric.summary().n == 30


def test_the_interval_is_over_groups_where_they_are_given():
    maps, masks = batch(24)
    groups = [f"patient {i // 5}" for i in range(24)]
    plain, grouped = SoftIoBB(interval=0.9, seed=4, **DRAWS), SoftIoBB(interval=0.9, seed=4, **DRAWS)
    plain.update(maps, masks)
    grouped.update(maps, masks, groups=groups)
    values = plain.per_image().values.double().numpy()
    kept = np.array([int(name[8:]) for i, name in enumerate(groups) if i % 4])
    draws = Resampling(0.9, 60, 4)
    assert plain.summary().interval == pytest.approx(mean_interval(Units.of(values), draws))
    assert grouped.summary().interval == pytest.approx(mean_interval(Units.of(values, kept), draws))
    assert grouped.summary().groups == 5 and plain.summary().interval != grouped.summary().interval
    assert grouped.summary().resampling == draws


def agreeing_then_not():
    """A first batch in which all settings below agree, and a second in which they do not."""
    first = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])
    second = torch.tensor([[[-1.0, 0.8, 0.4, 0.5]]])
    region = torch.tensor([[[0, 0, 0, 1]]])
    return (first, region), (second, region)


@pytest.mark.parametrize(
    "make",
    [
        lambda: {mode: SoftIoBB(normalize=mode) for mode in ("minmax", "max")},
        lambda: {mode: SoftIoR(normalize=mode) for mode in ("minmax", "max")},
        lambda: {"soft": SoftIoBB(), "ior": SoftIoR(), "energy": EnergyInside(), "point": PointingGame()},
        lambda: {str(tolerance): PointingGame(tolerance) for tolerance in (0, 2, 3)},
        lambda: {f"{percent} %": IoBB([percent / 100]) for percent in (30, 70, 90)},
        lambda: {mode: IoR([0.5, 0.7], normalize=mode) for mode in MODES},
    ],
)
@pytest.mark.parametrize("call", ["update", "forward"])
def test_a_collection_never_takes_two_settings_for_one(make, call):
    batches, collection, alone = agreeing_then_not(), MetricCollection(make()), make()
    for maps, region in batches:
        getattr(collection, call)(maps, region)
        for metric in alone.values():
            metric.update(maps, region)
    collected = {name: metric.compute() for name, metric in collection.items()}
    assert collected == {name: metric.compute() for name, metric in alone.items()}
    assert len(collection.compute_groups) == len(alone)
    per_image = [metric.per_image().values for metric in alone.values()]
    first, second = (torch.stack([values[i].flatten()[0] for values in per_image]) for i in (0, 1))
    assert len(first.unique()) == 1, "the first batch agrees"
    assert len(second.unique()) > 1, "the second does not"


def test_a_collection_shares_the_work_of_metrics_that_differ_in_their_interval_only():
    collection = MetricCollection({"a": SoftIoBB(interval=0.5, **DRAWS), "b": SoftIoBB(interval=0.9, **DRAWS)})
    maps, masks = batch()
    for rows in (slice(0, 6), slice(6, 12)):
        collection.update(maps[rows], masks[rows], classes=torch.arange(6), groups=["x"] * 6)
    assert len(collection.compute_groups) == 1
    a, b = (metric.summary() for metric in collection.values())
    assert a.value == b.value and a.n == b.n == 9
    assert a.resampling.interval == 0.5 and b.resampling.interval == 0.9


def test_a_collection_names_thresholds_apart():
    maps, masks = batch()
    collection = MetricCollection([SoftIoBB(), IoBB([0.2, 0.5]), IoR([0.5])], prefix="test/")
    names = {"test/SoftIoBB", "test/IoBB@0.2", "test/IoBB@0.5", "test/IoR@0.5"}
    assert set(collection(maps, masks)) == set(collection.compute()) == names


def test_a_metric_holds_one_number_an_image_with_a_region_and_its_labels():
    held = {}
    for n_batches in (10, 100):
        metrics = [SoftIoBB(), IoBB([0.3, 0.6])]
        for metric in metrics:
            for i in range(n_batches):
                maps = torch.rand(8, 3, 3, requires_grad=True)
                boxes = [[[0, 0, 1, 1]] if row < 5 else [] for row in range(8)]
                metric.update(maps, boxes, classes=[0] * 8, groups=[i] * 8)
            stored = [tensor for state in metric.metric_state.values() if isinstance(state, list) for tensor in state]
            assert not any(tensor.requires_grad for tensor in stored)
            held[type(metric).__name__, n_batches] = sum(tensor.untyped_storage().nbytes() for tensor in stored)
    for n_batches in (10, 100):
        assert held["SoftIoBB", n_batches] == 5 * n_batches * (4 + 8 + 8)
        assert held["IoBB", n_batches] == 5 * n_batches * (2 * 4 + 8 + 8)


def test_forward_keeps_no_graph():
    metric = SoftIoBB()
    metric(torch.rand(3, 4, 4, requires_grad=True) * 2, torch.eye(4).expand(3, 4, 4))
    assert not any(value.requires_grad for value in metric.per_image().values)


def test_before_any_image_the_result_is_nan():
    for metric in (SoftIoBB(), IoBB([0.5])):
        with pytest.warns(UserWarning, match="before"):
            result = metric.compute()
        assert torch.as_tensor(list(result.values()) if isinstance(result, dict) else [result]).isnan().all()
    summary = SoftIoBB().summary()
    assert math.isnan(summary.value) and summary.n == summary.skipped == 0
    assert all(map(math.isnan, summary.interval)) and summary.per_class == {}
    assert set(IoR([0.5, 0.7]).summary()) == {"IoR@0.5", "IoR@0.7"}


def test_images_without_a_region_alone_give_nan_and_their_number():
    metric = SoftIoBB()
    metric.update(torch.rand(3, 4, 4), [[], [], []], classes=[0, 1, 2])
    metric.update(torch.rand(0, 4, 4), torch.zeros(0, 4, 4))
    assert metric.compute().isnan()
    assert (metric.summary().n, metric.summary().skipped, metric.summary().without_region) == (0, 3, 3)


def test_equal_values_have_no_interval_and_no_warning():
    metric = PointingGame(**DRAWS)
    metric.update(torch.eye(3).expand(5, 3, 3), torch.ones(5, 3, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        summary = metric.summary()
    assert summary.value == 1 and all(map(math.isnan, summary.interval))


def test_copies_pickles_and_state_dicts_continue():
    maps, masks = batch()
    for make in (SoftIoBB, lambda: IoBB([0.25, 0.5]), lambda: PointingGame(2)):
        metric = make()
        metric.persistent(True)
        metric.update(maps, masks, groups=["a"] * 12)
        loaded = make()
        loaded.load_state_dict(metric.state_dict())
        for other in (metric.clone(), pickle.loads(pickle.dumps(metric)), loaded):
            other.update(maps + 1, masks, groups=["b"] * 12)
            again = make()
            again.update(torch.cat([maps, maps + 1]), torch.cat([masks, masks]))
            assert str(other.compute()) == str(again.compute())
            assert len(other.per_image().groups.unique()) == 2
        assert len(metric.per_image().values) == 9


@pytest.mark.skipif(not hasattr(torchmetrics.Metric, "merge_state"), reason="torchmetrics merges since 1.6")
def test_merging_metrics_joins_their_images():
    (first, there), (second, here) = batch(), batch()
    a, b, whole = SoftIoR(), SoftIoR(), SoftIoR()
    a.update(first, there)
    b.update(second, here)
    a.merge_state(b)
    whole.update(torch.cat([first, second]), torch.cat([there, here]))
    torch.testing.assert_close(a.compute(), whole.compute())
    with pytest.raises(ValueError, match="minmax"):
        SoftIoR().merge_state(SoftIoR(normalize="max"))


def test_half_precision_maps_are_measured_in_float32():
    maps, masks = batch()
    assert SoftIoBB()(maps.half(), masks) == SoftIoBB()(maps.half().float(), masks)


MAPS, BOXES = torch.rand(2, 4, 4), [[[0, 0, 2, 2]], [[1, 1, 3, 3]]]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((MAPS * NAN, BOXES), RangeError),
        ((MAPS[:, None], BOXES), ShapeError),
        ((MAPS.tolist(), BOXES), TypeMismatchError),
        ((MAPS, torch.ones(2, 5, 5)), ShapeError),
        ((MAPS, BOXES[:1]), ShapeError),
        ((MAPS, [[[0, 0, 5, 2]], []]), RangeError),
        ((MAPS, [[[2, 0, 1, 2]], []]), RangeError),
        ((MAPS, [[[2, 0, 2, 2]], []]), RangeError),
        ((MAPS, torch.ones(2, 4, 4) * NAN), RangeError),
    ],
)
def test_bad_batches_are_refused_and_change_nothing(arguments, kind):
    metric = SoftIoBB()
    metric.update(MAPS, BOXES)
    before = metric.per_image()
    with pytest.raises(kind):
        metric.update(*arguments)
    assert torch.equal(metric.per_image().values, before.values)
    assert metric.summary().without_region == 0


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({"classes": [0]}, ShapeError),
        ({"classes": [0, -1]}, RangeError),
        ({"classes": ["a", "b"]}, TypeMismatchError),
        ({"groups": [0.5, 1.0]}, TypeMismatchError),
        ({"groups": ["a", "b", "c"]}, ShapeError),
        ({}, RangeError),
        ({"groups": ["a", "b"], "classes": [0, 1]}, RangeError),
    ],
)
def test_bad_or_missing_labels_are_refused_and_change_nothing(labels, kind):
    metric = SoftIoBB()
    metric.update(MAPS, BOXES, groups=["a", "b"])
    with pytest.raises(kind):
        metric.update(MAPS, BOXES, **labels)
    assert metric.summary().n == 2 and metric.summary().groups == 2


def test_labels_that_forward_was_given_now_and_then_are_refused_by_the_summary():
    metric = SoftIoBB()
    metric(MAPS, BOXES, groups=["a", "b"])
    metric(MAPS, BOXES)
    for read in (metric.summary, metric.per_image):
        with pytest.raises(RangeError, match="groups for some images"):
            read()


def test_images_without_a_region_need_no_labels():
    metric = SoftIoBB(**DRAWS)
    metric.update(MAPS, [[], []])
    metric.update(MAPS, BOXES, groups=["a", "b"])
    metric.update(MAPS, [[], []])
    assert metric.summary().groups == 2 and metric.summary().skipped == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftIoBB(normalize="softmax"),
        lambda: SoftIoBB(interval=95),
        lambda: SoftIoR(n_resamples=0),
        lambda: SoftIoR(seed=-1),
        lambda: PointingGame(-1),
        lambda: PointingGame(1.5),
        lambda: IoBB([]),
        lambda: IoBB([0.0, 0.5]),
        lambda: IoR([0.5, 0.5]),
        lambda: IoR(0.5),
    ],
)
def test_settings_outside_their_range_are_refused(make):
    with pytest.raises(RangeError):
        make()


def test_a_signed_map_that_is_not_normalised_is_refused():
    with pytest.raises(RangeError, match="normalise it"):
        SoftIoBB(normalize="none").update(MAPS - 0.5, BOXES)


def test_the_mean_of_any_number_an_image_can_be_such_a_metric():
    class Largest(LocalisationMetric):
        def measure(self, attribution, region):
            return attribution.amax((1, 2))

    assert Largest(normalize="none")(MAPS, BOXES) == MAPS.amax((1, 2)).mean()
    with pytest.raises(TypeError, match="abstract"):
        LocalisationMetric()


def test_the_normalisation_stands_beside_every_figure():
    metric = PointingGame(15, normalize="max", **DRAWS)
    metric.update(MAPS, BOXES, classes=[3, 4], groups=[0, 1])
    assert "normalize=max" in str(metric.summary()) and "normalize=max" in repr(metric)
    assert "PointingGame(tolerance=15)" in str(metric.summary()) and "2 groups" in str(metric.summary())


def test_the_picture_shows_every_class_and_its_interval():
    metric = SoftIoBB(interval=0.9, **DRAWS)
    maps, masks = batch(20)
    metric.update(maps, masks, classes=torch.arange(20) % 2)
    summary = metric.summary()
    figure, given = plt.subplots()
    assert summary.plot(given) is figure
    ax = given
    assert [label.get_text() for label in ax.get_yticklabels()] == ["all (n=15)", "class 0 (n=5)", "class 1 (n=10)"]
    assert [line.get_xdata()[0] for line in ax.lines] == [part.value for part in (summary, *summary.per_class.values())]
    assert tuple(ax.collections[0].get_segments()[0][:, 0]) == summary.interval
    assert "normalize=minmax" in ax.get_xlabel() and "90 %" in ax.get_xlabel()
    made = SoftIoBB().summary().plot()
    assert made is not figure and made.axes
    drawn, _ = metric.plot()
    for each in (figure, drawn):
        plt.close(each)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_maps_on_a_gpu_take_regions_and_labels_from_anywhere():
    maps, masks = batch()
    expected = SoftIoBB()(maps, masks)
    for device in ("cpu", "cuda"):
        for there in ("cpu", "cuda"):
            metric = SoftIoBB(**DRAWS).to(device)
            metric.update(maps.cuda(), masks.to(there), classes=torch.arange(12, device=there), groups=["a"] * 12)
            metric.update(maps.cuda(), [[[0, 0, 1, 1]], *[[]] * 11], classes=[0] * 12, groups=["b"] * 12)
            assert metric.compute().device.type == device and metric.summary().n == 10
        metric = SoftIoBB().to(device)
        torch.testing.assert_close(metric(maps.cuda(), masks).cpu(), expected)
    for metric in (PointingGame(3), EnergyInside(), IoR([0.5])):
        near = metric(maps, masks)
        far = metric.to("cuda")(maps.cuda(), masks)
        for a, b in zip(*(r.values() if isinstance(r, dict) else [r] for r in (near, far)), strict=True):
            torch.testing.assert_close(a, b.cpu())
