"""Thresholds of a layer's units: exact, approximate with a bound, and in bounded memory."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.probes.activation_quantile import ActivationQuantile
from tests.probes import concept_oracles as slow

SHARES = (0.005, 0.02, 0.05, 0.1)


def bytes_for(rows, units):
    return 4 * rows * (units + 1)


def of_units(features):
    """(U, n) values."""
    return features.transpose(0, 1).flatten(1)


def held_bytes(metric):
    states = metric.metric_state.values()
    tensors = [tensor for state in states for tensor in (state if isinstance(state, list) else [state])]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors), "none is part of a larger one"
    return sum(tensor.nbytes for tensor in tensors)


def fed(metric, features, batch):
    for part in features.split(batch):
        metric.update(part)
    return metric


@pytest.mark.parametrize("known", ["exactly", "with room"])
@pytest.mark.parametrize("kind", ["dense", "after a ReLU", "few values", "ascending", "descending"])
def test_with_a_total_the_thresholds_are_those_of_all_values(kind, known):
    features = torch.randn(40, 5, 4, 6)
    if kind == "after a ReLU":
        features = features.sub(1.8).relu()
    elif kind == "few values":
        features = features.mul(2).round()
    elif kind != "dense":
        features = features.flatten().sort(descending=kind == "descending").values.view(40, 5, 4, 6)
    total = 40 * 4 * 6 * (3 if known == "with room" else 1)
    metric = fed(ActivationQuantile(total=total), features, 3)
    result = metric.compute()
    assert list(result) == [f"q={q}" for q in SHARES] and metric.rank_error() == 0
    values = of_units(features)
    for q, found in zip(SHARES, result.values(), strict=True):
        expected = np.quantile(values.numpy(), 1 - q, axis=1, method="inverted_cdf")
        assert found.dtype == torch.float32 and found.tolist() == expected.tolist()
        above = (values > found[:, None]).sum(1)
        assert (above <= q * 960).all()
        if kind == "dense":
            assert (above == int(q * 960)).all()


@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=60),
    st.sampled_from([5, 70, 100, 290, 999]),
    st.integers(1, 7),
)
def test_the_threshold_is_the_smallest_value_with_at_most_so_many_above_it(values, thousandths, batch):
    features = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)
    metric = fed(ActivationQuantile(thousandths / 1000, total=len(values)), features, batch)
    assert metric.compute().item() == slow.threshold(values, thousandths)


def test_a_share_is_taken_as_it_is_written():
    """In floating point 0.29 * 100 is below 29."""
    features = torch.arange(100.0).view(1, 1, 10, 10)
    assert ActivationQuantile(0.29, total=100)(features) == 70


def test_a_dead_unit_has_the_threshold_zero_and_one_share_gives_a_tensor():
    features = torch.rand(9, 3, 2, 2)
    features[:, 1] = 0
    found = ActivationQuantile(0.1, total=36)(features)
    assert found.shape == (3,) and found[1] == 0
    assert list(ActivationQuantile([0.1], total=36)(features)) == ["q=0.1"]


@pytest.mark.parametrize("kind", ["dense", "ascending", "after a ReLU"])
@pytest.mark.parametrize("rows", [600, 3000])
def test_without_a_total_shares_are_within_the_stated_error(kind, rows):
    features = torch.randn(120, 40, 20, 20)
    if kind == "after a ReLU":
        features = features.relu()
    elif kind == "ascending":
        features = of_units(features).sort(1).values.view(40, 120, 20, 20).transpose(0, 1)
    metric = fed(ActivationQuantile(max_bytes=bytes_for(rows, 40)), features, 7)
    values = of_units(features)
    n = values.shape[1]
    # 160 thresholds together, so that one of all may be over it in a thousand runs.
    error = metric.rank_error(1 - 1e-3 / 160)
    assert 0 < metric.rank_error() < error and metric.rank_error() * rows < 8
    off = []
    for q, found in zip(SHARES, metric.compute().values(), strict=True):
        above, reached = ((values > found[:, None]).sum(1) / n, (values >= found[:, None]).sum(1) / n)
        assert (above <= q + error).all() and (reached >= q - error).all()
        off.append(above - q)
    if kind != "after a ReLU":
        assert torch.stack(off).std() * rows < 3 and torch.stack(off).abs().max() > 0


def test_a_sketch_that_holds_all_values_is_exact():
    features = torch.rand(10, 3, 4, 4)
    metric = fed(ActivationQuantile(max_bytes=bytes_for(512, 3)), features, 2)
    assert metric.rank_error() == 0
    exact = fed(ActivationQuantile(total=160), features, 2).compute()
    assert all(torch.equal(found, exact[name]) for name, found in metric.compute().items())


def test_a_seed_gives_the_same_thresholds_again_and_another_one_others():
    features = torch.rand(60, 8, 10, 10)
    first, again, other = (
        fed(ActivationQuantile(0.02, max_bytes=bytes_for(512, 8), seed=seed), features, 9).compute()
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_too_little_memory_for_the_total_is_said_and_then_approximated():
    features = torch.rand(60, 8, 10, 10)
    metric = ActivationQuantile(total=6000, max_bytes=bytes_for(1100, 8))
    with pytest.warns(UserWarning, match=f"max_bytes={bytes_for(1202, 8)} for 8 units"):
        fed(metric, features, 20)
    assert metric.rank_error() > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fed(ActivationQuantile(total=6000, max_bytes=bytes_for(1202, 8)), features, 20).rank_error() == 0


@pytest.mark.parametrize("call", ["update", "forward"])
@pytest.mark.parametrize("mode", ["exact", "sketch"])
def test_memory_does_not_grow_with_the_images(mode, call):
    held = {}
    for images in (10, 10_000):
        metric = ActivationQuantile(
            0.02,
            total=10_000 * 9 if mode == "exact" else None,
            max_bytes=bytes_for(3700 if mode == "exact" else 512, 2),
        )
        for _ in range(images // 10 if images == 10 else 20):
            getattr(metric, call)(torch.rand(10 if images == 10 else 500, 2, 3, 3))
        assert int(metric.count) == images * 9
        held[images] = held_bytes(metric)
        assert held[images] <= metric.max_bytes + 16
    assert held[10] == bytes_for(90, 2) + 16, "of a few values only these"


def test_what_the_network_does_with_its_features_later_does_not_matter():
    features = torch.rand(6, 4, 3, 3).to(memory_format=torch.channels_last)
    metric = ActivationQuantile(0.1)  # holds all of so few
    metric.update(features)
    expected = of_units(features).sort(1).values[:, -6].clone()
    features.zero_()
    assert torch.equal(metric.compute(), expected)


def test_forward_gives_the_batch_and_keeps_all():
    features = torch.rand(12, 3, 5, 5, requires_grad=True) * 2
    metric = ActivationQuantile(0.1, total=300)
    for part in features.split(4):
        expected = np.quantile(of_units(part.detach()).numpy(), 0.9, axis=1, method="inverted_cdf")
        batch = metric(part)
        assert batch.tolist() == expected.tolist() and not batch.requires_grad
    expected = np.quantile(of_units(features.detach()).numpy(), 0.9, axis=1, method="inverted_cdf")
    assert metric.compute().tolist() == expected.tolist()
    metric.reset()
    assert int(metric.count) == 0 and metric(features[:4]).shape == (3,)


def test_copies_and_pickles_continue():
    features = torch.rand(12, 3, 5, 5)
    metric = ActivationQuantile(0.1, total=300)
    metric.update(features[:4])
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        other.update(features[4:])
        assert torch.equal(other.compute(), ActivationQuantile(0.1, total=300)(features))
    assert int(metric.count) == 100


def test_half_precision_is_read_as_float32():
    features = torch.rand(8, 2, 4, 4).to(torch.bfloat16)
    found = ActivationQuantile(0.1, total=128)(features)
    assert torch.equal(found, ActivationQuantile(0.1, total=128)(features.float())) and found.dtype == torch.float32


@pytest.mark.parametrize("call", ["update", "forward"])
def test_a_collection_never_takes_two_settings_for_one(call):
    def make():
        return {
            "one": ActivationQuantile(0.1),
            "other": ActivationQuantile(0.2),
            "exact": ActivationQuantile(0.1, total=5000),
            "small": ActivationQuantile(0.1, max_bytes=bytes_for(600, 2)),
            "seed": ActivationQuantile(0.1, max_bytes=bytes_for(600, 2), seed=1),
        }

    collection, alone = MetricCollection(make(), prefix="val/"), make()
    for _ in range(3):
        features = torch.rand(20, 2, 5, 5)
        getattr(collection, call)(features)
        for metric in alone.values():
            metric.update(features)
    result = collection.compute()
    assert len(collection.compute_groups) == 5
    for name, metric in alone.items():
        assert torch.equal(result[f"val/{name}"], metric.compute())


FEATURES = torch.rand(4, 3, 2, 2)


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        (FEATURES.long(), TypeMismatchError),
        (FEATURES.numpy(), TypeMismatchError),
        (FEATURES[:, 0], ShapeError),
        (FEATURES.flatten(1), ShapeError),
        (torch.rand(4, 0, 2, 2), ShapeError),
        (torch.rand(4, 3, 0, 2), ShapeError),
        (torch.rand(4, 2, 2, 2), ShapeError),
        (FEATURES.clone().index_fill_(0, torch.tensor(2), float("nan")), RangeError),
        (FEATURES.clone().index_fill_(1, torch.tensor(1), float("-inf")), RangeError),
        (FEATURES.double() * 1e300, RangeError),
        (torch.rand(22, 3, 2, 2), RangeError),
    ],
)
def test_bad_features_are_refused_and_change_nothing(features, kind):
    metric = ActivationQuantile(0.25, total=100)
    metric.update(FEATURES)
    before = metric.compute()
    with pytest.raises(kind):
        metric.update(features)
    assert int(metric.count) == 16 and torch.equal(metric.compute(), before)
    metric.update(torch.rand(21, 3, 2, 2))
    assert int(metric.count) == 100


def test_the_error_names_the_row_that_is_not_finite():
    with pytest.raises(RangeError, match="row 2"):
        ActivationQuantile().update(FEATURES.clone().index_fill_(0, torch.tensor(2), float("nan")))


def test_before_any_features_there_is_no_threshold():
    metric = ActivationQuantile()
    with pytest.warns(UserWarning, match="before"), pytest.raises(RangeError, match="call update first"):
        metric.compute()
    assert np.isnan(metric.rank_error())
    metric.update(torch.rand(0, 3, 2, 2))
    with pytest.raises(RangeError, match="call update first"):
        metric.compute()
    metric.update(FEATURES)
    assert metric.compute()["q=0.1"].shape == (3,)


def test_memory_that_is_too_little_for_any_sketch_is_refused():
    with pytest.raises(RangeError, match=f"needed {bytes_for(512, 3)} or more"):
        ActivationQuantile(max_bytes=bytes_for(512, 3) - 1).update(FEATURES)
    ActivationQuantile(max_bytes=bytes_for(512, 3)).update(FEATURES)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"q": 0}, RangeError),
        ({"q": 1.0}, RangeError),
        ({"q": float("nan")}, RangeError),
        ({"q": []}, RangeError),
        ({"q": (0.1, 0.1)}, RangeError),
        ({"q": "0.1"}, TypeMismatchError),
        ({"q": torch.tensor(0.1)}, TypeMismatchError),
        ({"total": 0}, RangeError),
        ({"total": 1e6}, RangeError),
        ({"max_bytes": 0}, RangeError),
        ({"max_bytes": None}, RangeError),
        ({"seed": -1}, RangeError),
    ],
)
def test_settings_outside_their_range_are_refused(settings, kind):
    with pytest.raises(kind):
        ActivationQuantile(**settings)


@pytest.mark.parametrize("confidence", [0, 1, 1.5])
def test_a_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(RangeError):
        ActivationQuantile().rank_error(confidence)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mode", ["exact", "sketch"])
def test_features_on_a_gpu_give_the_same(mode):
    features = torch.rand(40, 3, 10, 10)
    settings = {"total": 4000} if mode == "exact" else {"max_bytes": bytes_for(512, 3)}
    expected = fed(ActivationQuantile(0.05, **settings), features, 7).compute()
    for device in ("cpu", "cuda"):
        metric = fed(ActivationQuantile(0.05, **settings).to(device), features.cuda(), 7)
        assert metric.compute().device.type == device and torch.equal(metric.compute().cpu(), expected)
