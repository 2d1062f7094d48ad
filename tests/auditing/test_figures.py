import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribguard.auditing.figures import differences, figures, group_figures, shares
from attribguard.auditing.rows import LOCALISATION, ImageRow, Seen


def row(target, logits, inside=None, group="", baseline=None):
    def seen(values, share):
        return Seen(int(np.argmax(values)), list(values), dict.fromkeys(LOCALISATION, share), "")

    both = {"model": seen(logits, inside)}
    if baseline is not None:
        both["baseline"] = seen(*baseline)
    return ImageRow("", target, group, 0.0 if inside is None else 0.25, "", "", both)


def by_pairs(scores, truth):
    """AUROC as the share of pairs in the right order."""
    ahead = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    return float(np.mean(ahead))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=4, max_size=20))
def test_auroc_of_two_classes_is_the_share_of_pairs_in_order(pairs):
    truth, scores = np.array([a for a, _ in pairs]) == 1, np.array([float(b) for _, b in pairs])
    found = figures([row(int(a), (0.0, float(b))) for a, b in pairs], "model", 0)["auroc"].value
    assert (
        found is None if truth.all() or not truth.any() else found == pytest.approx(by_pairs(scores, truth), abs=1e-6)
    )


def test_auroc_of_three_classes_is_the_mean_of_each_against_the_rest():
    logits = np.random.default_rng(0).normal(size=(30, 3))
    targets = np.arange(30) % 3
    found = figures([row(int(t), tuple(z)) for t, z in zip(targets, logits, strict=True)], "model", 0)
    margins = [logits[:, k] - np.delete(logits, k, 1).max(1) for k in range(3)]
    assert found["auroc"].value == pytest.approx(
        np.mean([by_pairs(margins[k], targets == k) for k in range(3)]), abs=1e-6
    )
    assert found["accuracy"].value == pytest.approx((logits.argmax(1) == targets).mean())


def test_large_logits_do_not_become_ties():
    rows = [row(t, (0.0, z)) for t, z in ((0, 1000.0), (1, 1001.0), (0, 1002.0), (1, 1003.0))]
    assert figures(rows, "model", 0)["auroc"].value == 0.75


def test_images_without_a_region_take_no_part_in_where():
    found = figures([row(0, (1.0, 0.0), 0.5), row(1, (1.0, 0.0)), row(1, (0.0, 1.0), 0.75)], "model", 0)
    assert (found["inside"].value, found["inside"].n) == (0.625, 2)
    assert found["accuracy"].n == 3 and found["accuracy"].value == pytest.approx(2 / 3)


def test_many_classes_have_no_rank_figures():
    assert set(figures([row(0, np.zeros(21)), row(1, np.zeros(21))], "model", 0)) == {"accuracy", *LOCALISATION}


def test_differences_are_paired_and_leave_out_what_one_lacks():
    rows = [row(1, (0.0, 1.0), 0.9, baseline=((1.0, 0.0), 0.1)) for _ in range(12)]
    rows += [row(1, (0.0, 1.0), 0.9, baseline=((0.0, 1.0), None))]
    found = differences(rows, "model", "baseline", 0)
    assert found["inside"].figure.value == pytest.approx(0.8) and found["inside"].figure.n == 12
    assert found["accuracy"].figure.value == pytest.approx(12 / 13)
    assert found["inside"].p_value == pytest.approx(2 / 2**12)
    backwards = differences(rows, "baseline", "model", 0)
    assert backwards["inside"].figure.value == pytest.approx(-0.8)


def test_few_large_groups_are_told_apart_the_worst_first():
    rows = [row(int(i < 9), (0.0, 1.0), group="a") for i in range(10)] + [
        row(i % 2, (0.0, 1.0), group="b") for i in range(10)
    ]
    found = group_figures([*rows, row(1, (0.0, 1.0), group="small")], "model", 0)
    assert [(one.group, one.accuracy.value) for one in found] == [("b", 0.5), ("a", 0.9)]


def test_patients_are_no_groups_to_report_but_are_drawn_together():
    rows = [row(int(i % 4 < 2), (0.0, 1.0), group=str(i // 2)) for i in range(240)]
    assert group_figures(rows, "model", 0) == []
    alone = [ImageRow("", one.target, "", 0.0, "", "", one.seen) for one in rows]
    wide, narrow = (figures(some, "model", 0)["accuracy"] for some in (rows, alone))
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_few_groups_are_not_what_images_are_drawn_by():
    rows = [row(int(i < 100), (0.0, 1.0), group=str(i // 50)) for i in range(200)]
    alone = [ImageRow("", one.target, "", 0.0, "", "", one.seen) for one in rows]
    assert figures(rows, "model", 0) == figures(alone, "model", 0)


def test_shares_are_of_annotated_images():
    assert shares([row(0, (1.0, 0.0)), row(0, (1.0, 0.0), 0.5)]) == {"images": 2, "annotated": 1, "relevant": 0.25}
