"""Class activation maps of whole networks: the public packages' numbers, autograd, any layout, nothing disturbed."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attribguard as ag
from attribguard.attribution import cam
from attribguard.errors import AttribGuardError, LayerError, ModelError
from tests.networks import NETWORKS, PairOutput, batch, plain_cnn

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "gradcam_maps.npz")


class Golden(nn.Module):
    """The network of the golden file, in words there."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.act1 = activation()
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.act2 = activation()
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


def golden(net):
    model = Golden({"relu": nn.ReLU, "relu_inplace": lambda: nn.ReLU(inplace=True), "softplus": nn.Softplus}[net])
    prefix = f"{net.removesuffix('_inplace')}__w__"
    state = {key.removeprefix(prefix): torch.from_numpy(GOLDEN[key]) for key in GOLDEN.files if key.startswith(prefix)}
    model.double().load_state_dict(state)
    return model, torch.from_numpy(GOLDEN["x"]).double(), torch.from_numpy(GOLDEN["y"]).long()


class Backward(torch.autograd.Function):
    """The identity; counts how often a gradient passes."""

    passed = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Backward.passed += 1
        return gradient


def by_autograd(model, x, target, layer, method, relu=True, size=None):
    """The map written down from its definition, with a hook of its own."""
    seen = {}
    handle = model.get_submodule(layer).register_forward_hook(lambda m, a, out: seen.update(out=out))
    logits = model(x)
    handle.remove()
    features = seen["out"]
    (g,) = torch.autograd.grad(logits[torch.arange(len(x)), target].sum(), features)
    if method == "hirescam":
        drawn = (g * features).sum(1)
    elif method == "gradcam++":
        total = features.sum((2, 3), keepdim=True)
        alpha = g**2 / (2 * g**2 + total * g**3)
        drawn = ((alpha.nan_to_num(0) * g.clamp(min=0)).sum((2, 3), keepdim=True) * features).sum(1)
    else:
        drawn = (g.mean((2, 3), keepdim=True) * features).sum(1)
        drawn = drawn * features[0, 0].numel() if method == "cam" else drawn
    drawn = drawn.clamp(min=0) if relu else drawn
    return drawn.detach() if size is None else F.interpolate(drawn[None], size=size, mode="bilinear")[0].detach()


MAPS = [("relu", "conv2"), ("relu", "act2"), ("softplus", "conv2"), ("softplus", "act2"), ("relu_inplace", "act2")]


@pytest.mark.parametrize(("net", "layer"), MAPS)
def test_maps_are_those_of_the_public_packages(net, layer):
    model, x, y = golden(net)
    ours = cam(model, x, y, layer=layer, size="map", relu=False).numpy()
    np.testing.assert_allclose(ours[:, None], GOLDEN[f"{net}__{layer}__captum_raw"], rtol=1e-9, atol=1e-9)


def test_a_layer_that_is_overwritten_in_place_is_refused():
    """The public packages draw a wrong map there."""
    model, x, y = golden("relu_inplace")
    with pytest.raises(LayerError, match="in place"):
        cam(model, x, y, layer="conv2")


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("method", ["gradcam", "hirescam", "cam", "gradcam++"])
def test_the_closed_form_is_autograds_map(method, relu):
    model, x, y = golden("relu")
    expected = by_autograd(model, x, y, "act2", method, relu)
    torch.testing.assert_close(cam(model, x, y, method=method, relu=relu, size="map"), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "gradcam++"])
def test_below_more_layers_the_map_is_autograds_too(method):
    model, x, y = golden("softplus")
    expected = by_autograd(model, x, y, "act1", method, size=x.shape[-2:])
    ours = cam(model, x, y, layer="act1", method=method)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_no_backward_pass_runs_where_the_classifier_is_linear_and_one_where_it_is_not():
    class Counted(Golden):
        def forward(self, x):
            x = self.act2(self.conv2(self.act1(self.conv1(x))))
            return Backward.apply(self.fc(x.mean((2, 3))))

    model = Counted()
    x = torch.rand(2, 3, 12, 10)
    plain = Golden()
    plain.load_state_dict(model.state_dict())
    cam(plain, x)
    with torch.autograd.profiler.profile() as run:
        cam(plain, x)
    assert not any("Backward" in event.name for event in run.function_events)
    Backward.passed = 0
    cam(model, x, layer="act1")
    assert Backward.passed > 0


def test_the_predicted_class_is_asked_about_by_default_and_one_class_may_stand_for_all():
    model, x, _ = golden("relu")
    torch.testing.assert_close(cam(model, x), cam(model, x, model(x).argmax(1)))
    torch.testing.assert_close(cam(model, x, 2), cam(model, x, torch.full((4,), 2)))


def test_of_a_single_output_0_asks_for_what_speaks_against_it():
    model = plain_cnn(outputs=1)
    x, _, _ = batch()
    torch.testing.assert_close(
        cam(model, x, 1, relu=False, size="map"), -cam(model, x, 0, relu=False, size="map"), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_drawn_in_its_own_layout(name):
    model, shape = NETWORKS[name]()
    x = torch.rand(2, *shape)
    drawn = cam(model, x)
    assert drawn.shape == (2, *shape[1:]) and drawn.isfinite().all() and (drawn >= 0).all()
    small = cam(model, x, size="map", relu=False)
    assert small.shape[1] > 1 and small.abs().sum() > 0


def test_an_images_map_does_not_depend_on_its_neighbours():
    model = plain_cnn(norm=True, dropout=0.5)
    x, _, _ = batch()
    torch.testing.assert_close(cam(model, x)[1:2], cam(model, x[1:2]))


def test_the_model_is_afterwards_as_it_was_and_in_eval_mode_meanwhile():
    model = plain_cnn(norm=True, dropout=0.5).train()
    model[0].eval()
    x, _, _ = batch()
    modes = [m.training for m in model.modules()]
    buffers = [b.clone() for b in model.buffers()]
    state = torch.get_rng_state()
    first, second = cam(model, x, layer="2"), cam(model, x, layer="2")
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert [m.training for m in model.modules()] == modes
    assert all(map(torch.equal, model.buffers(), buffers))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters()) and not x.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_maps_come_without_a_graph_in_any_context():
    model, x, y = golden("relu")
    expected = cam(model, x, y)
    for context in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        with context:
            ours = cam(model, x, y)
        assert not ours.requires_grad
        torch.testing.assert_close(ours, expected)
    for p in model.parameters():
        p.requires_grad_(False)
    torch.testing.assert_close(cam(model, x, y, layer="act1"), by_frozen(x, y))


def by_frozen(x, y):
    model, _, _ = golden("relu")
    return by_autograd(model, x, y, "act1", "gradcam", size=x.shape[-2:])


def test_a_guard_is_looked_behind_and_keeps_working():
    model = plain_cnn(norm=True)
    x, y, mask = batch()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    torch.testing.assert_close(cam(guard, x), cam(model, x))
    assert guard(x, y, mask=mask).loss.isfinite()


def test_logits_are_picked_where_the_model_gives_more():
    model = PairOutput()
    x = torch.rand(2, 3, 12, 12)
    torch.testing.assert_close(cam(model, x, output=1), cam(model.net, x))


def test_another_classifier_or_weight_is_seen_at_the_next_call():
    model, x, y = golden("relu")
    before = cam(model, x, y, size="map")
    with torch.no_grad():
        model.fc.weight.mul_(2)
    torch.testing.assert_close(cam(model, x, y, size="map"), 2 * before)
    model.fc = nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    expected = by_autograd(model, x, y, "act2", "gradcam")
    torch.testing.assert_close(cam(model, x, y, size="map"), expected)


def test_what_is_kept_of_a_model_does_not_keep_it_alive():
    model = Golden()
    cam(model, torch.rand(1, 3, 12, 10))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layer": "act3"}, "act3"),
        ({"layer": "fc"}, "spatial extent"),
        ({"layer": "act*"}, "2 layers"),
        ({"method": "scorecam"}, "scorecam"),
        ({"size": 7}, "7"),
        ({"target": 4}, "0 to 3"),
        ({"target": torch.tensor([-1, 0, 0, 0])}, "-1"),
        ({"target": torch.zeros(3, dtype=torch.long)}, "3"),
        ({"target": torch.zeros(4)}, "float"),
    ],
)
def test_bad_input_is_one_clear_error_and_leaves_no_hook(options, words):
    model, x, _ = golden("relu")
    with pytest.raises(AttribGuardError, match=words):
        cam(model, x, **options)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_cam_is_refused_where_no_linear_layer_follows_the_pool():
    model, x, _ = golden("relu")
    with pytest.raises(ModelError, match="gradcam"):
        cam(model, x, layer="act1", method="cam")
