"""The segmentation loss as a module, and as the guard's criterion."""

import pytest
import torch
from torch import nn

import attribguard
from attribguard import functional
from attribguard.errors import AttribGuardError, ShapeError
from attribguard.losses import DiceCE
from tests.losses import oracles
from tests.oracles import as_array

SETTINGS = [
    {},
    {"over": "batch", "squared": True},
    {"ce": 1.0, "dice": 0.5, "ignore_index": 2, "smooth": 1.0},
]
settings_of = pytest.mark.parametrize("settings", SETTINGS, ids=str)


def case(channels=3, n=4):
    return torch.randn(n, channels, 5, 6), torch.randint(0, max(channels, 2), (n, 5, 6))


def segmenter(channels):
    """Two convolutions: a map of logits for each class."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, channels, 1))


@settings_of
def test_reductions_are_of_one_value_an_image(settings):
    logits, target = case()
    expected = torch.from_numpy(oracles.dice_ce(as_array(logits), target.numpy(), **settings)).float()
    for reduction, value in (("none", expected), ("mean", expected.mean()), ("sum", expected.sum())):
        loss = DiceCE(**settings, reduction=reduction)
        torch.testing.assert_close(loss(logits, target), value, rtol=1e-6, atol=1e-6)


def test_the_default_is_the_mean_of_the_functional_forms_default():
    logits, target = case()
    assert torch.equal(DiceCE()(logits, target), functional.dice_ce(logits, target).mean())


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("over", ["sample", "batch"])
@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_a_criterion_of_the_guard(reduction, over, channels):
    model, x = segmenter(channels), torch.randn(4, 1, 5, 6)
    _, target = case(channels)
    loss = DiceCE(over=over, reduction=reduction)
    out = attribguard.wrap(model, criterion=loss)(x, target)
    out.loss.backward()
    torch.testing.assert_close(out.loss, loss(model(x), target).mean())
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@settings_of
def test_a_compiled_loss_is_one_graph_and_gives_the_same(settings):
    torch.compiler.reset()  # all losses share one `forward`, which torch compiles for eight of them and no more
    logits, target = case()
    compiled = torch.compile(DiceCE(**settings), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(logits, target), DiceCE(**settings)(logits, target))


def test_a_classifiers_logits_are_refused():
    with pytest.raises(ShapeError, match=r"\(4, 3\); needed \(N, K, H, W\)"):
        DiceCE()(torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("setting", [{"ce": -1.0}, {"smooth": 0.0}, {"over": "images"}, {"reduction": "avg"}], ids=str)
def test_what_is_wrong_is_refused_when_the_loss_is_made(setting):
    with pytest.raises(AttribGuardError, match=next(iter(setting))):
        DiceCE(**setting)


def test_it_shows_its_settings():
    expected = (
        "DiceCE(ce=0.4, dice=0.6, over='batch', squared=False, ignore_index=-100, smooth=1e-05, reduction='mean')"
    )
    assert repr(DiceCE(over="batch")) == expected
