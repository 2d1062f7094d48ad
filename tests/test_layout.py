"""Features as (N, C, h, w), whatever the network's own layout; and a refusal where that cannot be told."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import LayerError
from attribguard.layout import Features, to_nchw
from tests import oracles
from tests.strategies import generator, seeds, small

IMAGE_SIZES = [(224, 224), (64, 128), (96, 64)]


def test_a_map_with_channels_first_is_itself():
    x = torch.randn(2, 5, 7, 7)
    assert to_nchw(x, 1, (224, 224)) is x


@given(n=small, channels=small, height=small, width=small, seed=seeds)
def test_a_map_with_channels_last_is_permuted(n, channels, height, width, seed):
    x = torch.randn(n, height, width, channels, generator=generator(seed))
    made = to_nchw(x, 3, (32, 32))
    assert made.shape == (n, channels, height, width)
    for i, j in np.ndindex(height, width):
        assert torch.equal(made[:, :, i, j], x[:, i, j])


def test_features_without_extent_are_a_map_of_one_cell():
    x = torch.randn(3, 5)
    assert torch.equal(to_nchw(x, None, (8, 8)), x.view(3, 5, 1, 1))


@pytest.mark.parametrize("image_size", IMAGE_SIZES, ids=str)
@pytest.mark.parametrize("prefix", [0, 1, 4, 5])
@pytest.mark.parametrize("channel_axis", [1, 2])
def test_tokens_become_a_map_without_the_class_and_register_tokens(image_size, prefix, channel_axis):
    grid = image_size[0] // 16, image_size[1] // 16
    tokens = torch.randn(2, prefix + grid[0] * grid[1], 3)
    made = to_nchw(tokens if channel_axis == 2 else tokens.transpose(1, 2), channel_axis, image_size)
    assert made.shape == (2, 3, *grid)
    for map_, row in zip(made, tokens, strict=True):
        np.testing.assert_array_equal(map_, oracles.tokens_as_map(row.numpy(), prefix, grid))


@given(
    patch=st.sampled_from([8, 14, 16, 32]), lines=st.integers(2, 8), columns=st.integers(2, 8), prefix=st.integers(0, 2)
)
def test_the_grid_of_whole_patches_is_found_for_every_image(patch, lines, columns, prefix):
    """Square patches; at most two further tokens, as in ViT and DeiT."""
    tokens = torch.arange(prefix + lines * columns).view(1, -1, 1)
    made = to_nchw(tokens, 2, (patch * lines, patch * columns))
    assert made.shape == (1, 1, lines, columns)
    assert made.flatten().tolist() == list(range(prefix, prefix + lines * columns))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("image_size", "grid"), [((224, 224), (14, 14)), ((64, 128), (8, 16)), ((225, 225), (15, 14))])
def test_an_unknown_axis_is_told_by_the_images_aspect_ratio(layout, image_size, grid):
    """To one cell: a network that rounds differently along both sides gives 15 x 14 for a square image."""
    x = torch.randn(2, 96, *grid)
    made = to_nchw(x if layout == "NCHW" else x.permute(0, 2, 3, 1), None, image_size, "stage")
    assert torch.equal(made, x)


@pytest.mark.parametrize(
    ("shape", "channel_axis", "image_size"),
    [
        ((2, 7, 7, 7), None, (224, 224)),  # both readings fit
        ((2, 7, 7, 8), None, (224, 224)),
        ((2, 3, 50, 10), None, (224, 224)),  # neither does
        ((2, 49, 8), None, (224, 224)),  # tokens or channels first
        ((2, 43, 8), 2, (224, 224)),  # no grid of the image's shape
        ((2, 8, 7, 7), 2, (224, 224)),
        ((2, 8, 4, 7, 7), 1, (224, 224)),
        ((2,), None, (224, 224)),
    ],
    ids=str,
)
def test_features_that_cannot_be_told_apart_are_refused_by_name(shape, channel_axis, image_size):
    with pytest.raises(LayerError) as caught:
        to_nchw(torch.zeros(shape), channel_axis, image_size, "blocks.3")
    assert str(shape) in caught.value.got
    assert "'blocks.3'" in caught.value.got
    assert "224 x 224" in caught.value.got
    assert "features.raw" in caught.value.fix


def test_more_tokens_in_front_than_any_network_has_are_refused():
    to_nchw(torch.zeros(1, 16 + 196, 2), 2, (224, 224))
    with pytest.raises(LayerError):
        to_nchw(torch.zeros(1, 17 + 196, 2), 2, (224, 224))


def test_a_map_keeps_the_graph():
    tokens = torch.randn(2, 5, 3, requires_grad=True)
    to_nchw(tokens, 2, (32, 32)).sum().backward()
    assert tokens.grad[:, 0].eq(0).all()
    assert tokens.grad[:, 1:].eq(1).all()


@pytest.fixture
def tensors():
    return {
        "stem": torch.randn(2, 3, 4, 4),
        "block": torch.randn(2, 5, 6).half(),
        "stage": torch.randn(2, 2, 2, 8).bfloat16(),
        "fc": torch.randn(2, 10).double(),
    }


def test_features_are_a_mapping_in_the_order_of_the_pass(tensors):
    features = Features(tensors, {"stem": 1, "block": 2, "stage": 3}, (32, 32))
    assert list(features) == ["stem", "block", "stage", "fc"]
    assert len(features) == 4
    shapes = [tuple(x.shape) for x in features.values()]
    assert shapes == [(2, 3, 4, 4), (2, 6, 2, 2), (2, 8, 2, 2), (2, 10, 1, 1)]
    assert torch.equal(features["block"], tensors["block"].float()[:, 1:].reshape(2, 2, 2, 6).permute(0, 3, 1, 2))
    assert "block" in features
    assert "other" not in features


def test_half_precision_features_come_as_float32_and_others_as_they_are(tensors):
    features = Features(tensors, {"stem": 1, "block": 2, "stage": 3}, (32, 32))
    expected = [torch.float32, torch.float32, torch.float32, torch.float64]
    assert [x.dtype for x in features.raw.values()] == expected
    assert [x.dtype for x in features.values()] == expected
    assert features.raw["fc"] is tensors["fc"]
    assert tensors["block"].dtype == torch.float16


def test_raw_features_keep_the_networks_layout(tensors):
    features = Features(tensors, {}, (32, 32))
    assert [x.shape for x in features.raw.values()] == [x.shape for x in tensors.values()]
    with pytest.raises(LayerError, match="'block'"):
        features["block"]


def test_only_keeps_the_named_layers_in_that_order(tensors):
    features = Features(tensors, {"stem": 1, "block": 2, "stage": 3}, (32, 32)).only(("stage", "stem"))
    assert list(features) == ["stage", "stem"]
    assert features["stage"].shape == (2, 8, 2, 2)
    with pytest.raises(KeyError):
        features["fc"]
