"""The losses for imbalance as modules: reductions, counts, and as the guard's criterion."""

import copy
import pickle

import pytest
import torch
from torch import nn

import attribguard
from attribguard import functional
from attribguard.errors import AttribGuardError, RangeError, ShapeError, TypeMismatchError
from attribguard.losses import BCE, ClassBalancedFocal, Focal, WeightedBCE
from tests.networks import batch, plain_cnn

POSITIVE, NEGATIVE = [3, 10, 1], [5, 2, 900]
LOSSES = {
    "bce": lambda **settings: BCE(**settings),
    "weighted_bce": lambda **settings: WeightedBCE(POSITIVE, NEGATIVE, **settings),
    "focal": lambda **settings: Focal(0.4, 1.5, **settings),
    "class_balanced_focal": lambda **settings: ClassBalancedFocal(
        POSITIVE, NEGATIVE, beta=0.99, gamma=1.5, normalize=True, **settings
    ),
}
ELEMENTS = {
    "bce": functional.bce,
    "weighted_bce": lambda z, y: functional.weighted_bce(z, y, POSITIVE, NEGATIVE),
    "focal": lambda z, y: functional.focal(z, y, alpha=0.4, gamma=1.5),
    "class_balanced_focal": lambda z, y: functional.class_balanced_focal(
        z, y, POSITIVE, NEGATIVE, beta=0.99, gamma=1.5, normalize=True
    ),
}
every = pytest.mark.parametrize("name", LOSSES)
counted = pytest.mark.parametrize("kind", [WeightedBCE, ClassBalancedFocal])


def case(n=6, classes=3):
    return torch.randn(n, classes), torch.randint(0, 2, (n, classes))


@every
def test_reductions_are_of_the_functional_form(name):
    logits, targets = case()
    elements = ELEMENTS[name](logits, targets)
    torch.testing.assert_close(LOSSES[name]()(logits, targets), elements.mean())
    torch.testing.assert_close(LOSSES[name](reduction="sum")(logits, targets), elements.sum())
    torch.testing.assert_close(LOSSES[name](reduction="none")(logits, targets), elements.mean(1))


@pytest.mark.parametrize("shape", [(5,), (5, 1)], ids=str)
def test_without_reduction_there_is_one_value_a_sample_for_one_label_too(shape):
    logits, targets = torch.randn(shape), torch.tensor([0, 1, 1, 0, 1])
    for loss in (BCE, Focal):
        assert loss(reduction="none")(logits, targets).shape == (5,)
    for loss in (WeightedBCE, ClassBalancedFocal):
        assert loss(2, 3, reduction="none")(logits, targets).shape == (5,)


def test_defaults_are_the_papers_and_the_mean():
    assert (Focal().alpha, Focal().gamma) == (0.25, 2.0)
    loss = ClassBalancedFocal(2, 3)
    assert (loss.beta, loss.gamma, loss.normalize) == (0.9999, 2.0, False)
    assert {type(make()): make().reduction for make in LOSSES.values()} == dict.fromkeys(
        (BCE, WeightedBCE, Focal, ClassBalancedFocal), "mean"
    )


@counted
def test_from_targets_counts_each_class(kind):
    targets = torch.tensor([[1, 0], [0, 1], [0, 1], [0, 1], [1, 1]])
    for given in (targets, targets.bool(), targets.double()):
        loss = kind.from_targets(given, reduction="sum")
        assert (loss.positive.tolist(), loss.negative.tolist(), loss.reduction) == ([2, 4], [3, 1], "sum")
    single = kind.from_targets(targets[:, 0])
    assert (single.positive.tolist(), single.negative.tolist()) == (2, 3)
    assert single(torch.zeros(2), torch.tensor([0, 1])).isfinite()


def test_from_targets_passes_settings_on():
    loss = ClassBalancedFocal.from_targets(torch.tensor([0, 1]), beta=0.5, gamma=1.0, normalize=True, reduction="none")
    assert repr(loss) == (
        "ClassBalancedFocal(beta=0.5, gamma=1.0, normalize=True, reduction='none', positive=1, negative=1)"
    )


@counted
@pytest.mark.parametrize(
    ("targets", "error", "words"),
    [
        ([[0, 1, 1], [0, 0, 1]], RangeError, ["only negative", "class 0,", "without positives"]),
        ([[1, 1, 1], [0, 1, 1]], RangeError, ["only positive", "class 1, 2,", "2 samples"]),
        ([1, 1, 1], RangeError, ["only positive", "class 0"]),
        ([[0, 2], [1, 0]], RangeError, ["value 2"]),
        ([[[0, 1]]], ShapeError, ["(1, 1, 2)"]),
        ([], ShapeError, ["(0,)"]),
    ],
)
def test_from_targets_refuses_classes_that_cannot_be_balanced(kind, targets, error, words):
    with pytest.raises(error) as caught:
        kind.from_targets(torch.tensor(targets))
    assert all(word in str(caught.value) for word in words), caught.value


def test_from_targets_refuses_what_is_no_tensor():
    with pytest.raises(TypeMismatchError, match="targets of list"):
        WeightedBCE.from_targets([0, 1])


def test_a_count_of_0_is_refused_where_a_class_would_vanish_and_taken_for_1_where_not():
    with pytest.raises(RangeError, match="0 positives of class 1"):
        WeightedBCE([1, 0], [1, 1])
    logits, targets = case(classes=2)
    assert torch.equal(
        ClassBalancedFocal([1, 0], [2, 2])(logits, targets), ClassBalancedFocal([1, 1], [2, 2])(logits, targets)
    )


@counted
def test_counts_are_saved_moved_and_copied_with_the_module_but_never_rounded(kind):
    counts = torch.tensor([112_119, 70_001])
    loss = kind(counts, [1, 2])
    assert set(loss.state_dict()) == {"positive", "negative"}
    assert not list(loss.parameters())
    counts[0] = 0
    for same in (loss, copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss).half()):
        assert same.positive.tolist() == [112_119, 70_001]
    other = kind([1, 1], [1, 1])
    other.load_state_dict(loss.state_dict())
    assert other.positive.tolist() == [112_119, 70_001]
    assert loss.to("meta").positive.device.type == "meta"


@every
def test_a_compiled_loss_is_one_graph_and_gives_the_same(name):
    torch.compiler.reset()  # all losses share one `forward`, which torch compiles for eight of them and no more
    logits, targets = case()
    compiled = torch.compile(LOSSES[name](), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, targets), LOSSES[name]()(logits, targets))


def test_losses_compile_with_one_setting_after_the_other():
    """From the second value on, a graph holds a number as a symbol."""
    torch.compiler.reset()
    logits, targets = case()
    for number in (0.2, 0.3, 0.5):
        for loss in (Focal(number, number), ClassBalancedFocal(POSITIVE, NEGATIVE, beta=number, gamma=number)):
            compiled = torch.compile(loss, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(logits, targets), loss(logits, targets))


@every
def test_permuting_the_batch_permutes_the_result(name):
    logits, targets = case()
    loss, order = LOSSES[name](reduction="none"), torch.randperm(6)
    assert torch.equal(loss(logits[order], targets[order]), loss(logits, targets)[order])


@every
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_each_is_a_criterion_of_the_guard(name, reduction):
    model, (x, _, mask) = plain_cnn(outputs=3), batch()
    targets, loss = torch.randint(0, 2, (4, 3)), LOSSES[name](reduction=reduction)
    guard = attribguard.wrap(model, criterion=loss, penalties=[attribguard.ActDiff(weight=1.0)])
    out = guard(x, targets, mask=mask)
    out.loss.backward()
    elements = ELEMENTS[name](model(x), targets)
    expected = elements.sum() if reduction == "sum" else elements.mean()
    torch.testing.assert_close(out.terms["criterion"], expected.detach())
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("loss", [BCE(), Focal(), WeightedBCE(1, 3), ClassBalancedFocal(1, 3)], ids=repr)
def test_each_is_a_criterion_of_the_guard_for_one_label(loss):
    model, (x, y, _) = plain_cnn(outputs=1), batch()
    guard = attribguard.wrap(model, criterion=loss)
    for target in (y, y[:, None], y.float()):
        out = guard(x, target)
        out.loss.backward()
        torch.testing.assert_close(out.loss, loss(model(x).squeeze(1), y))


def test_a_network_of_two_exclusive_classes_is_told_what_to_do_and_it_works():
    model, (x, y, _) = plain_cnn(outputs=2), batch()
    guard = attribguard.wrap(model, criterion=BCE())
    with pytest.raises(ShapeError) as caught:
        guard(x, y)
    guard.unwrap()
    assert "output=lambda z: z[:, 1] - z[:, 0]" in str(caught.value)
    out = attribguard.wrap(model, criterion=BCE(), output=lambda z: z[:, 1] - z[:, 0])(x, y)
    torch.testing.assert_close(out.loss, nn.functional.cross_entropy(model(x), y))


def test_targets_are_looked_at_always_on_the_cpu_unless_told_otherwise():
    bad = torch.zeros(1), torch.tensor([2])
    loss = BCE()
    for _ in range(12):
        with pytest.raises(RangeError, match="value 2"):
            loss(*bad)
    assert BCE(validate=False)(*bad).isfinite()


def test_targets_elsewhere_are_looked_at_in_the_first_calls_only():
    """The values of a meta tensor cannot be read: a call that tries fails, one that does not try passes."""
    elsewhere = torch.zeros(2, device="meta"), torch.zeros(2, device="meta")
    loss, looked = BCE(), []
    for _ in range(12):
        try:
            loss(*elsewhere)
        except (NotImplementedError, RuntimeError):
            looked.append(True)
        else:
            looked.append(False)
    assert looked == [True] * 10 + [False] * 2
    with pytest.raises((NotImplementedError, RuntimeError)):
        BCE(validate=True)(*elsewhere)


@every
@pytest.mark.parametrize("setting", [{"reduction": "avg"}, {"reduction": None}, {"validate": "always"}], ids=str)
def test_an_unknown_reduction_or_check_is_refused(name, setting):
    with pytest.raises(RangeError, match=f"{next(iter(setting))}=.*needed .*'"):
        LOSSES[name](**setting)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Focal(alpha=1.0), "alpha"),
        (lambda: Focal(gamma=-1.0), "gamma"),
        (lambda: ClassBalancedFocal(1, 1, beta=1.0), "beta"),
        (lambda: ClassBalancedFocal(1, 1, gamma=float("nan")), "gamma"),
        (lambda: WeightedBCE([1, 2], [1, 2, 3]), "(2,)"),
        (lambda: WeightedBCE([1, 2], [1, -3]), "-3 negatives of class 1"),
        (lambda: ClassBalancedFocal([1, float("nan")], [1, 1]), "nan positives of class 1"),
        (lambda: ClassBalancedFocal(torch.zeros(3, 2), torch.zeros(3, 2)), "from_targets"),
    ],
)
def test_what_is_wrong_is_refused_when_the_loss_is_made(make, word):
    with pytest.raises(AttribGuardError) as caught:
        make()
    assert word in str(caught.value)


@counted
def test_counts_of_another_length_than_the_logits_are_refused(kind):
    with pytest.raises(ShapeError, match=r"2 counts for logits of shape \(6, 3\); needed 3"):
        kind([1, 2], [3, 4])(*case())
