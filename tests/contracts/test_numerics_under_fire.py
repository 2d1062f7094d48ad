"""Finite losses and gradients on random small networks, masks and targets, whatever is extreme about a batch."""

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import attribguard as ag
from tests.contracts.every_term import HEADS, PENALTIES, guarded
from tests.strategies import generator, seeds

IMAGES = ["random", "constant", "zero", "huge", "tiny"]
MASKS = ["random", "one pixel", "border", "corner", "empty", "full", "soft"]
LOGITS = {"usual": 1.0, "saturated": 1e4, "none": 0.0}
FEATURES = ["alive", "all zero"]
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "in place": lambda: nn.ReLU(inplace=True)}
CRITERIA = {
    "default": (None, "classes"),
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), "classes"),
    "bce": (ag.losses.BCE(), "labels"),
    "focal": (ag.losses.Focal(), "labels"),
    "weighted bce": (ag.losses.WeightedBCE, "labels"),
    "class-balanced focal": (ag.losses.ClassBalancedFocal, "labels"),
}


@st.composite
def networks(draw):
    """(model, (channels, height, width), classes): two convolutions and a pooled or flat classifier."""
    channels, size = draw(st.sampled_from([1, 3])), draw(st.sampled_from([(6, 6), (8, 12), (9, 7)]))
    classes = draw(st.sampled_from([1, 2, 3, 3000]))
    stride = draw(st.sampled_from([1, 2]))
    make = ACTIVATIONS[draw(st.sampled_from(list(ACTIVATIONS)))]
    pooled, norm = draw(st.booleans()), draw(st.booleans())
    with torch.random.fork_rng():
        torch.manual_seed(draw(seeds))
        layers = []
        for cin, cout in ((channels, 3), (3, 4)):
            layers += [nn.Conv2d(cin, cout, 3, stride, 1), nn.BatchNorm2d(cout) if norm else nn.Identity(), make()]
        tail = nn.AdaptiveAvgPool2d(1 if pooled else 2)
        model = nn.Sequential(*layers, tail, nn.Flatten(), nn.Linear(4 if pooled else 16, classes))
        with torch.no_grad():
            if draw(st.sampled_from(FEATURES)) == "all zero":
                model[3].weight.zero_(), model[3].bias.zero_()
            scale = LOGITS[draw(st.sampled_from(list(LOGITS)))]
            model[-1].weight.mul_(scale)
            model[-1].bias.normal_().mul_(scale)
    model.train(draw(st.booleans()))
    return model, (channels, *size), classes


@st.composite
def batches(draw, shape):
    """(images, masks, segmentation, annotated) of one to three images, in [0, 1] where the images are not huge."""
    n, (channels, height, width) = draw(st.integers(1, 3)), shape
    source = generator(draw(seeds))
    x = torch.rand(n, channels, height, width, generator=source)
    x = {
        "random": x,
        "constant": torch.full_like(x, 0.3),
        "zero": torch.zeros_like(x),
        "huge": x * 1e4,
        "tiny": x * 1e-30,
    }[draw(st.sampled_from(IMAGES))]
    return (
        x,
        torch.stack([_mask(draw, height, width, source) for _ in range(n)]),
        draw(st.lists(st.booleans(), min_size=n, max_size=n)),
    )


def _mask(draw, height, width, source):
    kind = draw(st.sampled_from(MASKS))
    if kind == "random":
        return (torch.rand(height, width, generator=source) < 0.5).float()
    if kind == "soft":
        return torch.rand(height, width, generator=source)
    mask = torch.full((height, width), float(kind == "full"))
    if kind == "one pixel":
        mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = 1
    if kind == "border":
        mask[0], mask[-1], mask[:, 0], mask[:, -1] = 1, 1, 1, 1
    if kind == "corner":
        mask[-2:, -2:] = 1
    return mask


def targets(kind, classes, n, source):
    if kind == "labels" or classes == 1:
        shape = (n,) if classes == 1 else (n, classes)
        return torch.randint(0, 2, shape, generator=source).float()
    return torch.randint(0, classes, (n,), generator=source)


def criterion_of(name, classes):
    made, kind = CRITERIA[name]
    if isinstance(made, type):
        made = made([1] * classes, [10**6] * classes)
    return made, kind


def one_step(names, data, criterion="default"):
    """A guarded step of drawn network, images, masks and targets: the guard and what it gave."""
    model, shape, classes = data.draw(networks())
    x, mask, annotated = data.draw(batches(shape))
    source = generator(data.draw(seeds))
    criterion, kind = criterion_of(criterion if classes > 1 or criterion != "label smoothing" else "default", classes)
    y = targets(kind, classes, len(x), source)
    segmentation = torch.randint(0, 2, mask.shape, generator=source)
    if len(x) == 1 or not data.draw(st.booleans()):
        annotated = [True] * len(x)
    if "reconstruction masked" in names:
        x = x.clamp(max=1)  # its binary cross entropy takes no others
    guard = guarded(names, model, example_input=shape, criterion=criterion)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of blind maps and empty masks
        out = guard(x, y, mask=mask, segmentation=segmentation, annotated=torch.tensor(annotated))
    out.loss.backward()
    return guard, out


def check_finite(guard, out):
    for name, term in out.terms.items():
        assert term.isfinite(), name
        assert term >= 0, name
    assert out.loss.isfinite()
    for name, p in guard.named_parameters():
        assert p.grad is None or p.grad.isfinite().all(), name


@given(st.data())
def test_every_penalty_is_finite(data):
    check_finite(*one_step(list(PENALTIES), data))


@given(st.data())
def test_every_head_is_finite(data):
    check_finite(*one_step(list(HEADS), data))


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name != "default"])
@given(st.data())
def test_every_loss_is_finite_beside_a_penalty(criterion, data):
    check_finite(*one_step(["rrr"], data, criterion))


@given(st.data())
def test_where_nothing_lies_outside_every_penalty_is_zero_and_so_are_its_gradients(data):
    """Clean and corrupted images are the same, and no gradient counts."""
    # The published form adds 1e-6 to each difference.
    names = [name for name in PENALTIES if name != "actdiff rows"]
    model, shape, classes = data.draw(networks())
    x, _, _ = data.draw(batches(shape))
    y = targets("classes", classes, len(x), generator(data.draw(seeds)))
    guard = guarded(names, model, example_input=shape, criterion_weight=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = guard(x, y, mask=torch.ones(len(x), *shape[1:]))
    out.loss.backward()
    assert {name: term.item() for name, term in out.terms.items() if name != "criterion" and term != 0} == {}
    assert all(p.grad is None or (p.grad == 0).all() for p in guard.parameters())
