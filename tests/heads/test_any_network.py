"""Both heads on every network that users have: what is drawn, what is trained, and what `guard(x)` still is."""

import pytest
import timm
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import attribguard as ag
from attribguard.models import actdiff_cnn
from tests.networks import NETWORKS


def _small(name, size):
    return lambda: (timm.create_model(name, num_classes=2, img_size=size), (3, size, size))


# The two that are made for 224 pixels come smaller here; `test_pyramid.py` has them at full size.
MAKE = {
    **NETWORKS,
    "swin_tiny_patch4_window7_224": _small("swin_tiny_patch4_window7_224", 56),
    "vit_tiny_patch16_224": _small("vit_tiny_patch16_224", 64),
    "resnet50": lambda: (timm.create_model("resnet50", num_classes=2), (3, 97, 131)),
    "actdiff_cnn": lambda: (actdiff_cnn(), (1, 28, 28)),
}


class Operators(TorchDispatchMode):
    """Lists what is computed."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def operators(call, x):
    with torch.no_grad(), Operators() as mode:
        out = call(x)
    return mode.seen, out


@pytest.fixture(scope="module", params=MAKE)
def stepped(request):
    """One step of each network for its heads alone, made once for all claims: with the parameters before it, and with
    the operators of the bare model."""
    torch.manual_seed(0)
    model, shape = MAKE[request.param]()
    x = torch.rand(2, *shape)
    plain, _ = operators(model.eval(), x)
    heads = [ag.SegmentationHead(2, 0.4), ag.ReconstructionHead(0.4)]
    guard = ag.wrap(model.train(), heads=heads, criterion_weight=0.0, example_input=shape)
    parameters = dict(guard.named_parameters())
    segmentation = torch.randint(0, 2, (2, *shape[1:]))
    out = guard(x, torch.tensor([0, 1]), segmentation=segmentation)
    out.loss.backward()
    return guard, x, out, parameters, plain


def test_predictions_have_the_images_size(stepped):
    _, x, out, _, _ = stepped
    assert out.predictions["segmentation"].shape == (2, 2, *x.shape[2:])
    assert out.predictions["reconstruction"].shape == x.shape
    assert out.loss.isfinite()


def test_every_parameter_exists_when_wrap_returns_and_gets_a_gradient(stepped):
    guard, _, _, parameters, _ = stepped
    now = dict(guard.named_parameters())
    assert list(now) == list(parameters)
    assert all(now[name] is parameter for name, parameter in parameters.items())
    assert {name.split(".")[1] for name in now if name.startswith("heads.")} == {"segmentation", "reconstruction"}
    missing = [name for name, p in now.items() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []
    assert not any(isinstance(p, nn.UninitializedParameter) for p in now.values())


def test_the_heads_alone_train_the_networks_first_layer(stepped):
    guard, _, _, _, _ = stepped
    assert next(guard.model.parameters()).grad.abs().sum() > 0


def test_guard_of_images_alone_computes_exactly_what_the_bare_model_did(stepped):
    """The operators were listed before the model was wrapped; a guarded step lies in between."""
    guard, x, _, _, plain = stepped
    guard.eval()
    seen, out = operators(guard, x)
    assert seen == plain
    with torch.no_grad():
        assert torch.equal(out, guard.model(x))


def test_predict_runs_the_decoders_that_are_named_and_gives_what_a_step_gives(stepped):
    guard, x, _, _, _ = stepped
    guard.eval()
    with torch.no_grad():
        step = guard(x, torch.tensor([0, 1]))
        both, one, none = guard.predict(x), guard.predict(x, ["reconstruction"]), guard.predict(x, [])
    assert list(both.predictions) == ["segmentation", "reconstruction"]
    assert list(one.predictions) == ["reconstruction"]
    assert none.predictions == {}
    for prediction in (both, one, none):
        assert torch.equal(prediction.logits, step.logits)
        assert all(torch.equal(drawn, step.predictions[name]) for name, drawn in prediction.predictions.items())
