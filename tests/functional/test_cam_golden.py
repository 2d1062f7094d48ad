"""Maps against numbers of the public implementations (pytorch-grad-cam, captum), on the network of those files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from attribguard.functional import class_activation_map, normalize_map

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "gradcam_maps.npz")


def run(net, layer):
    """Features and gradient of the target logit at one layer, by autograd."""
    prefix = f"{net}__w__"
    w = {key.removeprefix(prefix): torch.from_numpy(GOLDEN[key]) for key in GOLDEN.files if key.startswith(prefix)}
    activation = F.softplus if net == "softplus" else F.relu
    x = torch.from_numpy(GOLDEN["x"]).double()
    x = activation(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1))
    conv2 = F.conv2d(x, w["conv2.weight"], w["conv2.bias"], stride=2, padding=1).requires_grad_()
    act2 = activation(conv2)
    logits = F.linear(act2.mean((2, 3)), w["fc.weight"], w["fc.bias"])
    features = {"conv2": conv2, "act2": act2}[layer]
    target = torch.from_numpy(GOLDEN["y"]).long()
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), features)
    return features.detach(), gradient, logits.detach()


CASES = [
    (net, layer)
    for net in ("relu", "softplus")
    for layer in ("conv2", "act2")
    if f"{net}__{layer}__ptgc_cam_raw" in GOLDEN.files
]


def test_the_file_holds_what_the_tests_read():
    assert len(CASES) >= 2


@pytest.mark.parametrize(("net", "layer"), CASES)
def test_raw_maps_equal_both_packages(net, layer):
    features, gradient, logits = run(net, layer)
    np.testing.assert_allclose(logits, GOLDEN[f"{net}__logits"], rtol=1e-9, atol=1e-9)
    cam = class_activation_map(features, gradient).numpy()
    np.testing.assert_allclose(cam, GOLDEN[f"{net}__{layer}__ptgc_cam_raw"], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(cam[:, None], GOLDEN[f"{net}__{layer}__captum_raw"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("net", "layer"), CASES)
def test_rectified_maps_equal_captum_and_normalise_to_its_shape(net, layer):
    features, gradient, _ = run(net, layer)
    cam = class_activation_map(features, gradient).relu()
    np.testing.assert_allclose(cam[:, None], GOLDEN[f"{net}__{layer}__captum_raw_relu"], rtol=1e-9, atol=1e-9)
    peaks = normalize_map(cam, "max").amax((1, 2))
    assert torch.all((peaks > 0.99) | (cam.amax((1, 2)) < 1e-3))


@pytest.mark.parametrize("net", ["relu", "softplus"])
def test_behind_the_activation_the_gradient_is_the_linear_layers_row(net):
    features, gradient, _ = run(net, "act2")
    cells = features.shape[-2] * features.shape[-1]
    key = next(k for k in GOLDEN.files if k.endswith("w__fc.weight"))
    rows = torch.from_numpy(GOLDEN[key])[torch.from_numpy(GOLDEN["y"]).long()]
    torch.testing.assert_close(gradient, (rows / cells)[:, :, None, None].expand_as(gradient).double())
