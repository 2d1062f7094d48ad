import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attribguard import ActDiff, wrap
from attribguard.errors import RangeError
from attribguard.models import actdiff_cnn


def layers(model, kind):
    return [module for module in model.modules() if isinstance(module, kind)]


def by_hand(model, x):
    """Appendix B written out with functions, from the network's own parameters."""
    convolutions, norms = layers(model, nn.Conv2d), layers(model, nn.BatchNorm2d)
    for number, convolution in enumerate(convolutions):
        if number in (2, 4, 6):
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, convolution.weight, convolution.bias, stride=1, padding=1)
        if norms:
            mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
            x = (x - mean) / (variance + 1e-5).sqrt()
        x = x.clamp(min=0)
    (linear,) = layers(model, nn.Linear)
    return x.flatten(1) @ linear.weight.T + linear.bias


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_network_is_that_of_appendix_b(norm):
    model = actdiff_cnn(norm=norm)
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(model(x), by_hand(model, x), rtol=1e-4, atol=1e-5)
    widths = [(conv.in_channels, conv.out_channels) for conv in layers(model, nn.Conv2d)]
    assert widths == [(1, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    assert len(layers(model, nn.BatchNorm2d)) == (8 if norm == "batch" else 0)


@pytest.mark.parametrize(("norm", "kinds"), [("none", {0: 2, 2: 2}), ("batch", {0: 1, 1: 5, 3: 1, 4: 5})])
def test_checkpoints_keep_their_keys(norm, kinds):
    """Which layers of a block hold how many tensors; files that were saved once have to load for ever."""
    expected = {(f"block{n}", str(i)): count for n in (1, 2, 3, 4) for i, count in kinds.items()} | {("fc",): 2}
    parts = [tuple(key.split(".")[:-1]) for key in actdiff_cnn(channels=1, norm=norm).state_dict()]
    assert {part: parts.count(part) for part in parts} == expected


@pytest.mark.parametrize(
    ("options", "shape", "out"),
    [
        ({"channels": 8, "norm": "batch"}, (1, 28, 28), 2),
        ({"num_classes": 1, "in_chans": 3, "img_size": 32, "channels": 2}, (3, 32, 32), 1),
        ({"num_classes": 5, "img_size": 8, "channels": 1}, (1, 8, 8), 5),
        ({"img_size": 45, "channels": 1}, (1, 45, 45), 2),
    ],
)
def test_shapes_follow_the_options(options, shape, out):
    assert actdiff_cnn(**options).eval()(torch.rand(2, *shape)).shape == (2, out)


def test_what_enters_the_activations_survives_the_pass():
    """It holds negative values afterwards, at as many ReLUs as Appendix B has convolutions."""
    model, entered = actdiff_cnn(), []
    for activation in layers(model, nn.ReLU):
        activation.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    model(torch.rand(2, 1, 28, 28))
    assert len(entered) == 8
    assert all((x < 0).any() for x in entered)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_actdiff_finds_all_eight_pre_activations(norm):
    guard = wrap(actdiff_cnn(channels=1, norm=norm), penalties=[ActDiff(1.0)], example_input=(1, 28, 28))
    assert len(guard.layers["actdiff"]) == 8


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"in_chans": 0},
        {"channels": 0},
        {"channels": 1.5},
        {"channels": True},
        {"img_size": 7},
        {"norm": "layer"},
        {"norm": None},
    ],
)
def test_bad_options_are_refused_by_name(options):
    with pytest.raises(RangeError, match=next(iter(options))):
        actdiff_cnn(**options)
