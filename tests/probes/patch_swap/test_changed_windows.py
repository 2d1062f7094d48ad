import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attribguard.network import Network
from attribguard.probes.patch_swap import changed_windows, patch_swap_scan
from attribguard.probes.patch_swap.changed_windows import Box, ChangedWindows
from attribguard.probes.patch_swap.dropout_calls import find_dropouts
from tests.probes.patch_swap import one_pass_at_a_time
from tests.probes.patch_swap.one_pass_at_a_time import Case, draw_masks, drop
from tests.strategies import seeds


def box(top, left, height, width=None):
    return Box(slice(top, top + height), slice(left, left + (width or height)))


def windows(prefix, *, side=28, dtype=torch.float32, flat=False):
    """The windows of a network with this prefix, and an image."""
    x = torch.randn(1, 2, side, side, dtype=dtype)
    network = nn.Sequential(*prefix, *([nn.Flatten()] if flat else []), nn.Dropout(), nn.Flatten()).to(dtype).eval()
    dropouts = find_dropouts(network, network, x)
    return ChangedWindows(Network(network, None), dropouts), x


@st.composite
def prefixes(draw):
    """Up to three convolutions or poolings of any stride, dilation and padding, with something value by value."""
    layers, channels = [], 2
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        if draw(st.booleans()):
            mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
            padding, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
            layers.append(nn.Conv2d(channels, 3, kernel, stride, padding, dilation, padding_mode=mode))
            channels = 3
            layers.append(draw(st.sampled_from([nn.ReLU, nn.SiLU, nn.Tanh, nn.Identity]))())
        else:
            pool, ceil = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d])), draw(st.booleans())
            layers.append(pool(kernel, stride, draw(st.integers(0, kernel // 2)), ceil_mode=ceil))
        if draw(st.booleans()):
            norm = nn.BatchNorm2d(channels)
            nn.init.normal_(norm.running_mean)
            nn.init.normal_(norm.bias)
            layers.append(norm)
    return layers


@settings(max_examples=60, deadline=None)
@given(st.data(), seeds, st.booleans())
def test_a_crop_has_exactly_the_features_that_a_patch_changes(data, seed, flat):
    torch.manual_seed(seed)
    found, x = windows(data.draw(prefixes()), dtype=torch.float64, flat=flat)
    patch = box(data.draw(st.integers(0, 24)), data.draw(st.integers(0, 24)), 4)
    with torch.no_grad():
        window = found.find(x, patch)
        if window is None:
            return
        swapped = x.repeat(3, 1, 1, 1)
        patch.of(swapped).normal_()
        composed = found.maps(x).repeat(3, 1, 1, 1)
        window.outer.of(composed).copy_(window.inner.of(found.maps(window.crop.of(swapped))))
        torch.testing.assert_close(composed, found.maps(swapped), rtol=1e-10, atol=1e-10)


LOCAL = {
    "convolution and pooling": lambda: [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)],
    "strides": lambda: [nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)],
    "dilation": lambda: [nn.Conv2d(2, 4, 3, padding=2, dilation=2), nn.AvgPool2d(2)],
    "reflected borders": lambda: [nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.MaxPool2d(3, 2, 1)],
    "fixed statistics": lambda: [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.SELU()],
    "nothing": list,
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", LOCAL)
def test_local_networks_are_run_on_a_small_crop_at_the_border_and_inside(name, flat):
    found, x = windows(LOCAL[name](), flat=flat)
    with torch.no_grad():
        for patch in (box(0, 0, 4), box(8, 24, 4), box(13, 11, 3), box(24, 24, 4)):
            window = found.find(x, patch)
            assert window is not None and window.crop.size <= 17 * 17
            assert window.crop.rows.start <= patch.rows.start and window.crop.rows.stop >= patch.rows.stop


class Gated(nn.Module):
    """Does something to the whole image, but only if one of its values is large."""

    def forward(self, x):
        return torch.where(x.amax((1, 2, 3), keepdim=True) > 100, -x, x)


class Coordinates(nn.Module):
    def forward(self, x):
        return x + torch.linspace(0, 1, x.shape[-1]).to(x)


GLOBAL = {
    "global pooling": lambda: [nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(4)],
    "statistics of an image": lambda: [nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4)],
    "statistics of a batch": lambda: [nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)],
    "a gate that noise does not open": lambda: [nn.Conv2d(2, 4, 3), Gated()],
    "coordinates": lambda: [nn.Conv2d(2, 4, 3), Coordinates()],
    "a hidden layer": lambda: [nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 6), nn.ReLU()],
    "a kernel as large as the image": lambda: [nn.Conv2d(2, 4, 27, padding=13)],
}


@pytest.mark.parametrize("name", GLOBAL)
def test_networks_that_are_not_local_are_run_on_the_whole_image(name):
    found, x = windows(GLOBAL[name]())
    with torch.no_grad():
        assert found.find(x, box(8, 8, 4)) is None


def test_a_crop_whose_features_are_others_is_not_taken(monkeypatch):
    prefix = [nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU()]
    with torch.no_grad():
        found, x = windows(prefix)
        assert found.find(x, box(9, 9, 4)) is not None
        along = changed_windows._along

        def one_place_off(*arguments):
            crop, inner, outer = along(*arguments)
            return crop, slice(inner.start - 1, inner.stop - 1), outer

        monkeypatch.setattr(changed_windows, "_along", one_place_off)
        found, x = windows(prefix)
        assert found.find(x, box(9, 9, 4)) is None


@pytest.mark.parametrize("side", [20, 13])
def test_a_scan_by_crops_equals_one_forward_pass_for_each_image(side):
    conv, pool = nn.Conv2d(1, 3, 3, padding=1), nn.MaxPool2d(2)
    linear = nn.Linear(3 * (side // 2) ** 2, 3)
    network = nn.Sequential(conv, nn.ReLU(), pool, nn.Dropout(), nn.Flatten(), linear)
    case = Case(
        network,
        lambda x, keeps: linear(drop(pool(conv(x).relu()), keeps[0], 0.5).flatten(1)),
        [((3, side // 2, side // 2), 0.5)],
        "LinearPasses",
    )
    sources, targets = torch.rand(2, 1, side, side), torch.rand(9, 1, side, side)
    rows = []
    conv.register_forward_hook(lambda module, args, out: rows.append(args[0].shape[2]))
    options = {"passes": 4, "patch_size": 3, "stride": 3, "progress": False}
    # Batches end within positions and sources, too.
    scan = patch_swap_scan(network, sources, targets, batch_size=25, **options)
    assert min(rows) < side / 2
    certainty, _ = one_pass_at_a_time.scan(
        case, sources, targets, scan.source_class, draw_masks(0, 4, case.masks), 3, 3
    )
    np.testing.assert_allclose(scan.certainty, certainty, rtol=0, atol=1e-6)
