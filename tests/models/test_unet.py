import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attribguard.errors import RangeError, ShapeError
from attribguard.models import unet


def by_hand(model, x):
    """Ronneberger et al., Figure 1, padded, for sides that can be halved three times; no normalisation."""
    convolutions = iter([m for m in model.modules() if isinstance(m, nn.Conv2d)])
    upward = iter([m for m in model.modules() if isinstance(m, nn.ConvTranspose2d)])

    def twice(x):
        for _ in range(2):
            convolution = next(convolutions)
            x = F.conv2d(x, convolution.weight, convolution.bias, padding=1).clamp(min=0)
        return x

    first = twice(x)
    second = twice(F.max_pool2d(first, 2))
    third = twice(F.max_pool2d(second, 2))
    x = twice(F.max_pool2d(third, 2))
    for level in (third, second, first):
        up = next(upward)
        x = twice(torch.cat([level, F.conv_transpose2d(x, up.weight, up.bias, stride=2)], 1))
    last = next(convolutions)
    return F.conv2d(x, last.weight, last.bias)


def test_the_network_is_that_of_figure_1():
    model, x = unet(3, 2, channels=4, depth=4, norm="none"), torch.randn(2, 2, 16, 24)
    torch.testing.assert_close(model(x), by_hand(model, x), rtol=1e-4, atol=1e-5)


def test_the_default_is_the_published_size():
    """Counted level by level: 3x3 convolutions without bias, two numbers a normalised channel."""
    widths = [64, 128, 256, 512, 1024]
    down = sum(9 * (a * b + b * b) + 4 * b for a, b in zip([3, *widths], widths, strict=False))
    up = sum(4 * 2 * b * b + b + 9 * (2 * b * b + b * b) + 4 * b for b in widths[:-1])
    assert sum(p.numel() for p in unet().parameters()) == down + up + 64 * 2 + 2


@given(st.integers(4, 21), st.integers(4, 21), st.sampled_from(["none", "batch"]))
@settings(max_examples=20)
def test_every_pixel_of_an_image_of_any_size_gets_its_logits(height, width, norm):
    logits = unet(3, 1, channels=2, depth=3, norm=norm)(torch.rand(2, 1, height, width))
    assert logits.shape == (2, 3, height, width)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("depth", "size"), [(5, (15, 40)), (5, (40, 15)), (3, (3, 3))])
def test_an_image_smaller_than_a_cell_of_the_coarsest_level_is_refused(depth, size):
    model = unet(channels=1, depth=depth)
    with pytest.raises(ShapeError, match=f"{size[0]}x{size[1]} pixels; needed {2 ** (depth - 1)}x"):
        model(torch.rand(2, 3, *size))
    model(torch.rand(2, 3, 2 ** (depth - 1), 2 ** (depth - 1)))


def test_weights_start_from_he_et_al():
    for module in unet(norm="none", channels=32, depth=3).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_in = module.in_channels * module.kernel_size[0] ** 2
            assert math.isclose(module.weight.detach().std(), math.sqrt(2 / fan_in), rel_tol=0.05)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_checkpointing_changes_no_gradient_and_no_statistic_and_keeps_less(norm):
    model, x = unet(channels=3, depth=3, norm=norm), torch.rand(2, 3, 13, 10)
    twin = unet(channels=3, depth=3, norm=norm)
    twin.load_state_dict(model.state_dict())
    twin.set_grad_checkpointing()
    kept = []
    for network in (model, twin):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            loss = network(x).square().sum()
        loss.backward()
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2
    for (name, ours), theirs in zip(twin.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name
    for (name, ours), theirs in zip(twin.named_buffers(), model.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_the_network_compiles_into_one_graph():
    model, x = unet(channels=2, depth=3).eval(), torch.rand(2, 3, 12, 9)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), model(x))


@pytest.mark.parametrize(
    "options", [{"num_classes": 0}, {"in_chans": 0}, {"channels": 0}, {"depth": 1}, {"norm": "group"}]
)
def test_bad_options_are_refused_by_name(options):
    with pytest.raises(RangeError, match=next(iter(options))):
        unet(**options)
