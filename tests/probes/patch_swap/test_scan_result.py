import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy import stats

from attribguard.errors import DataError, RangeError
from attribguard.probes.patch_swap import PatchGrid, ScanResult


def make(certainty, baseline=None, grid=None, **options):
    certainty = np.asarray(certainty, dtype=np.float64)
    sources, _, positions = certainty.shape
    return ScanResult(**{
        "certainty": certainty,
        "baseline": np.full(sources, 0.9) if baseline is None else np.asarray(baseline, dtype=np.float64),
        "source_class": (1,) * sources,
        "grid": grid or PatchGrid((2, 2 * positions), 2, 2),
        "passes": 100,
        "seed": 5,
        "mode": "swap",
        "reduce": "mean",
        "dropout": None,
        "left_out": 3,
        "picture": np.arange(4 * positions, dtype=np.uint8).reshape(2, -1),
        **options,
    })  # fmt: skip


def noisy(sources=10, targets=12, drops=(0.0, 0.3, 0.0, 0.0, 0.15, 0.0), spread=0.01, **options):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(sources, targets, len(drops))) + rng.normal(size=(sources, 1, len(drops)))
    return make(0.9 - np.asarray(drops) - spread * noise, **options)


def test_drop_is_the_mean_loss_of_certainty_against_each_sources_own_baseline():
    scan = make([[[0.5, 0.8], [0.7, 1.0]], [[0.4, 0.2], [0.2, 0.2]]], baseline=[1.0, 0.5])
    np.testing.assert_allclose(scan.drop, [(0.5 + 0.3 + 0.1 + 0.3) / 4, (0.2 + 0.0 + 0.3 + 0.3) / 4])
    np.testing.assert_allclose(scan.curves, [[0.6, 0.9], [0.3, 0.2]])
    np.testing.assert_allclose(scan.excess, [0.3 - 0.2, 0.2 - 0.3])
    assert scan.argmin == 0


def test_suspects_need_both_a_small_p_value_and_a_large_drop():
    scan = noisy()
    assert scan.suspects(alpha=0.01, min_drop=0.1) == [1, 4]  # the largest drop first
    assert scan.suspects(alpha=0.01, min_drop=0.2) == [1]
    loud = noisy(spread=0.3)
    assert loud.drop[1] > 0.2 and loud.suspects(alpha=0.01) == []


def test_p_values_are_of_the_drop_beyond_that_of_the_other_positions():
    """Sources chosen for their class lose certainty everywhere: that is no evidence."""
    scan = noisy(drops=(0.3,) * 6)
    assert (scan.drop > 0.25).all() and scan.suspects(alpha=0.05) == []


def test_p_values_are_corrected_for_the_number_of_positions():
    scan = noisy(spread=0.1)
    single, corrected = scan.single_p_values, scan.p_values
    assert (corrected >= single).all()
    assert corrected.min() == pytest.approx(6 * single.min())


def test_with_one_fixed_target_the_test_is_students_over_the_sources():
    scan = noisy(targets=1, mode="blank", spread=0.2)
    contrast = scan.drops[:, 0] - (scan.drops[:, 0].sum(1, keepdims=True) - scan.drops[:, 0]) / 5
    expected = stats.ttest_1samp(contrast, 0, alternative="greater")
    np.testing.assert_allclose(scan.single_p_values, expected.pvalue)
    drops = scan.drops[:, 0]
    low, high = stats.t.interval(0.9, 9, drops.mean(0), stats.sem(drops))
    np.testing.assert_allclose(scan.interval(0.9), np.stack([low, high], 1))


def test_intervals_are_of_the_drop_or_of_its_excess():
    scan = noisy()
    for of, value in (("drop", scan.drop), ("excess", scan.excess)):
        low, high = scan.interval(of=of).T
        np.testing.assert_allclose((low + high) / 2, value)
        assert (high > low).all()
        wider = scan.interval(0.99, of=of)
        assert (wider[:, 0] < low).all() and (wider[:, 1] > high).all()


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (noisy(sources=7), "7 sources, of 8 or more"),
        (noisy(targets=1), "1 target, of 2 or more"),
        (noisy(drops=(0.3,)), "1 position"),
    ],
    ids=["sources", "targets", "positions"],
)
def test_without_enough_to_test_p_values_are_nan_with_a_reason_and_suspects_refuse(scan, reason):
    assert reason in scan.untested
    assert np.isnan(scan.p_values).all() and np.isnan(scan.single_p_values).all()
    for ask in (scan.suspects, scan.irrelevant_mask):
        with pytest.raises(DataError, match=reason):
            ask()
    assert noisy(sources=8).untested is None and not np.isnan(noisy(sources=8).p_values).any()


def test_irrelevant_mask_is_0_in_the_suspects_and_1_elsewhere():
    scan = noisy(grid=PatchGrid((7, 10), 3, 3))  # 2 x 3 patches, a border of one
    expected = torch.ones(1, 1, 7, 10)
    expected[..., :3, 3:6] = 0  # position 1
    expected[..., 3:6, 3:6] = 0  # position 4
    assert torch.equal(scan.irrelevant_mask(alpha=0.01), expected)
    assert torch.equal(scan.irrelevant_mask(min_drop=0.5), torch.ones(1, 1, 7, 10))


def test_heatmap_is_the_mean_drop_of_the_patches_over_a_pixel_and_nan_at_the_border():
    scan = make(0.9 - np.array([[[0.1, 0.3]]]), grid=PatchGrid((3, 4), 3, 1))
    np.testing.assert_allclose(scan.heatmap(), [[0.1, 0.2, 0.2, 0.3]] * 3)
    border = make(0.9 - np.array([[[0.1, 0.3]]]), grid=PatchGrid((3, 5), 2, 2)).heatmap()
    np.testing.assert_allclose(border[:2, :4], [[0.1, 0.1, 0.3, 0.3]] * 2)
    assert np.isnan(border[2]).all() and np.isnan(border[:, 4]).all()


@pytest.mark.parametrize("picture", [np.zeros((2, 12), np.uint8), np.full((2, 12, 3), 7, np.uint8)])
@pytest.mark.parametrize("dropout", [None, "independent", 0.5])
def test_json_keeps_everything_to_the_last_bit(picture, dropout):
    scan = noisy(picture=picture, dropout=dropout)
    read = ScanResult.from_json(scan.to_json())
    for field in dataclasses.fields(scan):
        before, after = getattr(scan, field.name), getattr(read, field.name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
        else:
            assert before == after and type(before) is type(after)
    np.testing.assert_array_equal(scan.p_values, read.p_values)


def spoiled(**changes):
    values = json.loads(noisy().to_json())
    return json.dumps({**values, **changes})


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", noisy().to_json()[:-5], spoiled(baseline=[0.1]), spoiled(certainty=[0.1]), spoiled(more=1),
        spoiled(grid={"image": [2, 4], "patch": 2, "stride": 2}), spoiled(grid={"image": [2, 12], "patch": 3}),
        spoiled(certainty="abc"), spoiled(source_class=None),
    ],
)  # fmt: skip
def test_text_that_is_no_scan_is_one_clear_error(text):
    with pytest.raises(DataError, match="text that is no scan"):
        ScanResult.from_json(text)


@pytest.mark.parametrize(
    "ask",
    [
        lambda scan: scan.suspects(alpha=0), lambda scan: scan.suspects(1.5), lambda scan: scan.suspects(min_drop=-1),
        lambda scan: scan.irrelevant_mask(min_drop=2), lambda scan: scan.interval(1.0), lambda scan: scan.interval(0),
        lambda scan: scan.interval(of="drops"),
    ],
)  # fmt: skip
def test_a_limit_out_of_range_is_one_clear_error(ask):
    with pytest.raises(RangeError):
        ask(noisy())


def test_a_result_says_what_was_scanned_and_what_was_not():
    text = str(noisy(grid=PatchGrid((7, 10), 3, 3)))
    for words in ("6 positions of 3 x 3", "T = 100", "N = 12", "S = 10", "seed 5", "3 sources left out",
                  "1 pixels below, 1 at the right"):  # fmt: skip
        assert words in text
    assert "left out" not in str(noisy(left_out=0)) and "border" not in str(noisy())
