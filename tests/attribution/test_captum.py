"""Captum's methods as attributors: its own numbers, right under in-place activations, the model left alone."""

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam, NoiseTunnel, Occlusion, Saliency
from torch import nn

from attribguard.attribution import cam, from_captum
from attribguard.errors import ShapeError
from tests.networks import batch, plain_cnn

X, Y, _ = batch(channels=3)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        (IntegratedGradients, {"n_steps": 7}),
        (Saliency, {"abs": False}),
        (Occlusion, {"sliding_window_shapes": (3, 4, 4), "strides": (3, 4, 4)}),
    ],
)
def test_maps_are_captums_summed_over_the_channels(method, arguments):
    model = plain_cnn(channels=3).eval()
    expected = method(model).attribute(X.clone().requires_grad_(), target=Y, **arguments).sum(1).detach()
    torch.testing.assert_close(from_captum(method, **arguments)(model, X, Y), expected)


def test_a_callable_may_make_the_method():
    model = plain_cnn(channels=3)
    attributor = from_captum(lambda model: NoiseTunnel(Saliency(model)), nt_samples=2, stdevs=0.0, abs=False)
    torch.testing.assert_close(attributor(model, X, Y), from_captum(Saliency, abs=False)(model, X, Y))


def test_a_layers_map_is_resized_and_right_under_in_place_activations():
    """Captum reads a hooked output after the activation behind it has overwritten it."""
    inplace, plain = plain_cnn(channels=3, inplace=True), plain_cnn(channels=3)
    plain.load_state_dict(inplace.state_dict())
    ours = from_captum(LayerGradCam, layer="2")(inplace, X, Y)
    torch.testing.assert_close(ours, cam(plain, X, Y, layer="2", relu=False))
    assert all(m.inplace for m in inplace.modules() if isinstance(m, nn.ReLU))


def test_without_a_target_the_predicted_class_is_asked_about():
    model = plain_cnn(channels=3)
    attributor = from_captum(Saliency)
    torch.testing.assert_close(attributor(model, X), attributor(model, X, model(X).argmax(1)))


def test_of_a_single_output_0_asks_for_the_opposite():
    model = plain_cnn(channels=3, outputs=1)
    attributor = from_captum(Saliency, abs=False)
    ones = torch.ones(len(X), dtype=torch.long)
    torch.testing.assert_close(attributor(model, X, ones), -attributor(model, X, 0 * ones))


def test_the_model_is_left_as_it_was():
    model = plain_cnn(channels=3, norm=True, dropout=0.5, inplace=True).train()
    buffers = [b.clone() for b in model.buffers()]
    state = torch.get_rng_state()
    attributor = from_captum(IntegratedGradients, n_steps=3)
    with torch.no_grad():
        first, second = attributor(model, X, Y), attributor(model, X, Y)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not first.requires_grad
    assert all(m.training for m in model.modules()) and all(p.grad is None for p in model.parameters())
    assert all(map(torch.equal, model.buffers(), buffers))
    assert torch.equal(torch.get_rng_state(), state)


def test_an_attribution_that_is_no_map_is_refused():
    with pytest.raises(ShapeError, match="map"):
        from_captum(LayerGradCam, layer="6")(plain_cnn(channels=3), X, Y)
