"""The losses for imbalance against Eq. 1 in 150 digits, against golden numbers, and what holds for all inputs."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from attribguard import functional
from attribguard.errors import AttribGuardError, RangeError, ShapeError, TypeMismatchError
from tests.losses import oracles
from tests.oracles import as_array
from tests.strategies import generator, seeds, small

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "imbalance_losses.npz")
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-9}
COUNTED = ("weighted_bce", "class_balanced_focal")
# the function, and its settings beside the counts
CASES = [
    ("bce", {}),
    ("weighted_bce", {}),
    ("focal", {}),
    ("focal", {"alpha": 0.9, "gamma": 0.5}),
    ("focal", {"alpha": None, "gamma": 1.0}),
    ("focal", {"gamma": 0.0}),
    ("class_balanced_focal", {}),
    ("class_balanced_focal", {"beta": 0.0, "gamma": 1.5}),
    ("class_balanced_focal", {"beta": 0.999, "normalize": True}),
]
cases = pytest.mark.parametrize(("kind", "settings"), CASES, ids=str)
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def golden(name, dtype=torch.float64):
    return torch.from_numpy(GOLDEN[name]).to(dtype)


def compute(kind, logits, targets, counts, **settings):
    return getattr(functional, kind)(logits, targets, *(counts if kind in COUNTED else ()), **settings)


def expected(kind, logits, targets, counts, **settings):
    of_classes = {"positive": counts[0].tolist(), "negative": counts[1].tolist()} if kind in COUNTED else {}
    if kind == "focal":
        settings = {"alpha": 0.25, **settings}
    return oracles.elementwise(kind, as_array(logits), targets.numpy(), **of_classes, **settings)


@st.composite
def labelled(draw, dtype=torch.float64, largest=100.0):
    """Logits (N, K), targets of 0 and 1, and the K classes' counts."""
    shape, source = (draw(small), draw(small)), generator(draw(seeds))
    scale = draw(st.sampled_from([1.0, 10.0, largest]))
    logits = scale * (2 * torch.rand(shape, generator=source, dtype=torch.float64) - 1)
    targets = torch.randint(0, 2, shape, generator=source)
    counts = torch.randint(1, 10 ** draw(st.integers(1, 6)), (2, shape[1]), generator=source)
    return logits.to(dtype), targets, counts


@cases
@dtypes
@given(data=st.data())
def test_values_and_gradients_agree_with_equation_1(kind, settings, dtype, data):
    logits, targets, counts = data.draw(labelled(dtype))
    logits.requires_grad_()
    value = compute(kind, logits, targets, counts, **settings)
    value.sum().backward()
    assert value.dtype == dtype
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    np.testing.assert_allclose(as_array(value), expected(kind, logits, targets, counts, **settings), **tolerance)
    slope = expected(kind, logits, targets, counts, slope=True, **settings)
    np.testing.assert_allclose(as_array(logits.grad), slope, **tolerance)


@cases
def test_digits_are_kept_where_the_network_is_sure(kind, settings):
    """`softplus` is the identity above 20: a part in 10^10 of the value, and all of the second derivative."""
    logits = torch.tensor([-60.0, -25.0, -20.5, 20.5, 25.0, 60.0], dtype=torch.float64).repeat(2, 1).T
    targets, counts = torch.tensor([[0, 1]]).expand_as(logits), torch.tensor([[3, 500], [70, 1]])
    value = compute(kind, logits, targets, counts, **settings)
    np.testing.assert_allclose(as_array(value), expected(kind, logits, targets, counts, **settings), rtol=1e-13, atol=0)


def test_the_second_derivative_of_bce_is_p_times_1_minus_p():
    logits = torch.tensor([-25.0, -3.0, 0.0, 3.0, 25.0], dtype=torch.float64, requires_grad=True)
    for targets in (torch.zeros(5), torch.ones(5)):
        (first,) = torch.autograd.grad(functional.bce(logits, targets).sum(), logits, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), logits)
        expected = [1 / (2 + np.exp(z) + np.exp(-z)) for z in logits.tolist()]
        np.testing.assert_allclose(as_array(second), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("bce", "bce"), ("weighted_bce", "wbce"), ("focal", "focal"), ("class_balanced_focal", "cb_focal")],
)
@dtypes
def test_values_and_gradients_agree_with_the_golden_numbers(kind, name, dtype):
    logits = golden("logits", dtype).requires_grad_()
    counts = torch.stack([golden("N_pos"), golden("N_neg")])
    value = compute(kind, logits, golden("targets"), counts)
    value.sum().backward()
    tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    np.testing.assert_allclose(as_array(value), GOLDEN[f"{name}__elementwise"], **tolerance)
    np.testing.assert_allclose(as_array(value.sum()), GOLDEN[f"{name}__sum"], rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(as_array(logits.grad), GOLDEN[f"{name}__grad_logits_of_sum"], **tolerance)


def test_the_oracle_agrees_with_the_golden_numbers():
    """Two computations that know nothing of each other, and nothing of the library."""
    counts = {"positive": GOLDEN["N_pos"], "negative": GOLDEN["N_neg"]}
    for kind, name, settings in (
        ("bce", "bce", {}),
        ("weighted_bce", "wbce", counts),
        ("focal", "focal", {"alpha": 0.25}),
        ("class_balanced_focal", "cb_focal", counts),
    ):
        value = oracles.elementwise(kind, GOLDEN["logits"], GOLDEN["targets"], **settings)
        np.testing.assert_allclose(value, GOLDEN[f"{name}__elementwise"], rtol=1e-11, atol=1e-15)


def test_class_balanced_weights_keep_their_digits_in_float32():
    """The form without expm1 is off by 1.7e-4."""
    counts = golden("cb_counts")
    logits = torch.zeros(1, len(counts))
    value = functional.class_balanced_focal(logits, torch.ones_like(logits), counts, counts, gamma=0.0)
    np.testing.assert_allclose(as_array(value[0]), GOLDEN["cb_weight_at_counts"] * np.log(2), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.25, 0.6])
def test_focal_equals_torchvisions(alpha):
    logits, targets = golden("logits"), golden("targets")
    theirs = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=2)
    torch.testing.assert_close(functional.focal(logits, targets, alpha=alpha), theirs, rtol=1e-9, atol=1e-12)
    theirs = sigmoid_focal_loss(logits, targets, alpha=-1, gamma=2)
    torch.testing.assert_close(functional.focal(logits, targets, alpha=None), theirs, rtol=1e-9, atol=1e-12)


def test_weighted_bce_is_bce_with_a_pos_weight_times_the_share_of_positives():
    logits, targets = golden("logits"), golden("targets")
    positive, negative = golden("N_pos"), golden("N_neg")
    theirs = F.binary_cross_entropy_with_logits(logits, targets, reduction="none", pos_weight=negative / positive)
    ours = functional.weighted_bce(logits, targets, positive, negative)
    torch.testing.assert_close(ours, positive / (positive + negative) * theirs, rtol=1e-9, atol=1e-12)


@given(labelled())
def test_focal_without_fading_and_with_equal_sides_is_half_of_bce(case):
    logits, targets, _ = case
    half = functional.bce(logits, targets) / 2
    assert torch.equal(functional.focal(logits, targets, alpha=0.5, gamma=0.0), half)


@given(labelled())
def test_weighted_bce_with_equal_counts_is_half_of_bce(case):
    logits, targets, counts = case
    assert torch.equal(
        functional.weighted_bce(logits, targets, counts[0], counts[0]), functional.bce(logits, targets) / 2
    )


@given(labelled())
def test_class_balanced_focal_with_beta_0_is_focal_without_alpha(case):
    logits, targets, counts = case
    balanced = functional.class_balanced_focal(logits, targets, *counts, beta=0.0)
    assert torch.equal(balanced, functional.focal(logits, targets, alpha=None))


@given(labelled(), st.sampled_from([0.0, 0.9, 0.9999]))
def test_normalized_weights_of_a_labels_two_sides_sum_to_2(case, beta):
    """As in Cui et al.; read off at a logit of 0, where both sides lose log 2 without the fading."""
    logits, _, counts = case
    zeros = torch.zeros_like(logits)
    sides = [
        functional.class_balanced_focal(zeros, zeros + y, *counts, beta=beta, gamma=0.0, normalize=True) for y in (0, 1)
    ]
    torch.testing.assert_close(sum(sides), torch.full_like(zeros, 2 * np.log(2)), rtol=1e-12, atol=0)


@cases
@given(case=labelled(), seed=seeds)
def test_permuting_the_batch_permutes_the_result(kind, settings, case, seed):
    logits, targets, counts = case
    order = torch.randperm(len(logits), generator=generator(seed))
    permuted = compute(kind, logits[order], targets[order], counts, **settings)
    assert torch.equal(permuted, compute(kind, logits, targets, counts, **settings)[order])


@cases
@given(case=labelled(torch.float32, largest=1e4))
def test_values_are_finite_and_not_negative(kind, settings, case):
    value = compute(kind, *case, **settings)
    assert value.shape == case[0].shape
    assert value.isfinite().all()
    assert (value >= 0).all()


@cases
@dtypes
def test_values_and_two_derivatives_are_finite_at_any_logit(kind, settings, dtype):
    sizes = torch.tensor([0.0, 1e-30, 20.0, 80.0, 89.0, 104.0, 1e4, 1e30], dtype=dtype)
    logits = torch.cat([sizes, -sizes]).repeat(2, 1).T.clone().requires_grad_()
    targets = torch.tensor([[0, 1]]).expand_as(logits)
    value = compute(kind, logits, targets, torch.tensor([[3, 5], [7, 1]]), **settings)
    (first,) = torch.autograd.grad(value.sum(), logits, create_graph=True)
    (second,) = torch.autograd.grad((first * torch.rand_like(first)).sum(), logits)
    assert value.isfinite().all()
    assert first.isfinite().all()
    assert second.isfinite().all()


@cases
def test_first_and_second_derivatives_pass_gradcheck(kind, settings):
    logits = (8 * torch.randn(6, 2, dtype=torch.float64)).requires_grad_()
    logits.data[0] = torch.tensor([40.0, -40.0])
    targets, counts = torch.randint(0, 2, (6, 2)), torch.tensor([[3, 500], [70, 1]])

    def value(z):
        return compute(kind, z, targets, counts, **settings)

    assert torch.autograd.gradcheck(value, [logits])
    assert torch.autograd.gradgradcheck(value, [logits])


@cases
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_computed_in_float32(kind, settings, dtype):
    """exp(-20) is 0 in float16, and its focal loss needs the square of it."""
    logits = torch.tensor([[-20.0, 20.0], [9.0, -3.0], [80.0, -80.0]]).to(dtype)
    targets, counts = torch.tensor([[1, 0], [1, 1], [0, 1]]), torch.tensor([[10, 112_119], [60_000, 10]])
    value = compute(kind, logits, targets, counts, **settings)
    assert value.dtype == torch.float32
    np.testing.assert_allclose(as_array(value), expected(kind, logits, targets, counts, **settings), rtol=1e-5)


@pytest.mark.parametrize("kind", ["bce", "weighted_bce", "focal", "class_balanced_focal"])
def test_a_compiled_graph_has_no_break_for_looking_at_values(kind):
    torch.compiler.reset()
    case = torch.randn(4, 2), torch.randint(0, 2, (4, 2)), torch.tensor([[3, 500], [70, 1]])
    compiled = torch.compile(lambda *case: compute(kind, *case), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*case), compute(kind, *case))


@cases
def test_autocast_changes_nothing(kind, settings):
    case = torch.randn(4, 2), torch.randint(0, 2, (4, 2)), torch.tensor([[3, 500], [70, 1]])
    with torch.autocast("cpu", torch.bfloat16):
        inside = compute(kind, *case, **settings)
    assert torch.equal(inside, compute(kind, *case, **settings))


@cases
def test_one_label_may_come_with_or_without_its_axis_and_in_any_type(kind, settings):
    logits, targets = torch.randn(5, 1), torch.tensor([[0], [1], [1], [0], [1]])
    matrix = compute(kind, logits, targets, torch.tensor([[3], [4]]), **settings)
    for shape, of_targets in itertools.product([(5,), (5, 1)], repeat=2):
        for dtype in (torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64):
            value = compute(kind, logits.view(shape), targets.view(of_targets).to(dtype), (3, 4), **settings)
            assert torch.equal(value, matrix.view(shape))


def test_a_count_of_0_counts_as_1_for_the_class_balanced_loss():
    logits, targets = torch.randn(4, 2), torch.randint(0, 2, (4, 2))
    zero = functional.class_balanced_focal(logits, targets, [0, 7], [5, 0])
    assert zero.isfinite().all()
    assert torch.equal(zero, functional.class_balanced_focal(logits, targets, [1, 7], [5, 1]))


def test_targets_are_not_looked_at_when_told_so_but_nan_still_shows():
    value = functional.bce(torch.zeros(2), torch.tensor([float("nan"), 1.0]), validate=False)
    assert value.isnan().tolist() == [True, False]


ZEROS, LABELS = torch.zeros(3, 2), torch.tensor([[0, 1], [1, 0], [1, 1]])


@pytest.mark.parametrize(
    ("logits", "targets", "error", "words"),
    [
        (ZEROS, torch.tensor([0, 1, 1]), ShapeError, ["(3, 2)", "exclusive", "logits[:, 1] - logits[:, 0]"]),
        (torch.zeros(3, 5), torch.tensor([0, 4, 1]), ShapeError, ["exclusive", "cross entropy", "one_hot"]),
        (ZEROS, LABELS[:2], ShapeError, ["(2, 2)", "(3, 2)"]),
        (ZEROS, LABELS[:, :1], ShapeError, ["(3, 1)", "(3, 2)"]),
        (torch.zeros(3), torch.tensor([0, 1]), ShapeError, ["(2,)", "(3,)"]),
        (torch.zeros(3), LABELS, ShapeError, ["(3, 2)", "(3,)"]),
        (torch.zeros(1), torch.tensor(1), ShapeError, ["()", "(1,)"]),
        (torch.zeros(()), torch.tensor(1), ShapeError, ["(N, K) or (N,)"]),
        (torch.zeros(3, 2, 2), torch.zeros(3, 2, 2), ShapeError, ["(3, 2, 2)"]),
        (torch.zeros(0, 2), torch.zeros(0, 2), ShapeError, ["(0, 2)", "empty"]),
        (ZEROS, 2 * LABELS, RangeError, ["value 2", "0 and 1"]),
        (ZEROS, LABELS - 1, RangeError, ["value -1", "uncertain"]),
        (ZEROS, 0.5 * LABELS, RangeError, ["value 0.5", "soft"]),
        (ZEROS, LABELS * float("nan"), RangeError, ["value nan"]),
        (ZEROS.long(), LABELS, TypeMismatchError, ["torch.int64", "floating-point"]),
        ([[0.0]], LABELS, TypeMismatchError, ["logits of list"]),
        (ZEROS, LABELS.tolist(), TypeMismatchError, ["targets of list"]),
        (ZEROS, LABELS.to(torch.complex64), TypeMismatchError, ["complex64"]),
        (ZEROS, LABELS.to("meta"), TypeMismatchError, ["meta", "cpu"]),
    ],
)
@pytest.mark.parametrize("kind", ["bce", "weighted_bce", "focal", "class_balanced_focal"])
def test_logits_and_targets_that_do_not_fit_are_refused(kind, logits, targets, error, words):
    with pytest.raises(error) as caught:
        compute(kind, logits, targets, ([3, 4], [5, 6]))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("kind", COUNTED)
@pytest.mark.parametrize(
    ("positive", "negative", "error", "words"),
    [
        ([1, 2, 3], [1, 2, 3], ShapeError, ["3 counts", "needed 2"]),
        (1, 1, ShapeError, ["1 counts", "needed 2"]),
        ([1, 2], [1, 2, 3], ShapeError, ["(2,)", "(3,)"]),
        ([1, 2], 3, ShapeError, ["(2,)", "()"]),
        ([], [], ShapeError, ["(0,)"]),
        ([[1, 2]], [[1, 2]], ShapeError, ["(1, 2)", "from_targets"]),
        ([1, -2], [1, 2], RangeError, ["-2 positives of class 1"]),
        ([1, 2], [float("nan"), 2], RangeError, ["nan negatives of class 0"]),
        ([1, 2], [1, float("inf")], RangeError, ["inf negatives of class 1"]),
        ([1, 2.5], [1, 2], RangeError, ["2.5 positives of class 1", "whole number"]),
        (["a", "b"], [1, 2], TypeMismatchError, ["'a'"]),
        (None, [1, 2], TypeMismatchError, ["None"]),
    ],
)
def test_counts_that_do_not_fit_are_refused(kind, positive, negative, error, words):
    with pytest.raises(error) as caught:
        compute(kind, ZEROS, LABELS, (positive, negative))
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(("counts", "side"), [(([0, 3], [4, 4]), "positives"), (([3, 3], [0, 4]), "negatives")])
def test_a_weighted_bce_in_which_a_class_would_vanish_is_refused(counts, side):
    with pytest.raises(RangeError, match=f"0 {side} of class 0; needed a whole number of 1 or more"):
        functional.weighted_bce(ZEROS, LABELS, *counts)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *(("focal", {"alpha": alpha}) for alpha in (0.0, 1.0, -1, float("nan"))),
        *((kind, {"gamma": gamma}) for gamma in (-1, float("inf"), "2", True) for kind in ("focal", COUNTED[1])),
        *((COUNTED[1], {"beta": beta}) for beta in (1.0, -0.1, 2, None)),
    ],
    ids=str,
)
def test_a_setting_out_of_its_range_is_refused_by_name(kind, settings):
    with pytest.raises(AttribGuardError, match=next(iter(settings))):
        compute(kind, ZEROS, LABELS, ([3, 4], [5, 6]), **settings)
