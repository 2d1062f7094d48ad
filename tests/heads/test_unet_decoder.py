"""The decoder that fits any network: shapes, widths, skips, and images that stay to themselves."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attribguard.heads.unet_decoder import UNetDecoder
from attribguard.pyramid import Level
from tests.strategies import seeds

RESNET = [
    Level("act1", 64, (32, 32), 1), Level("layer1", 256, (16, 16), 2), Level("layer2", 512, (8, 8), 3),
    Level("layer3", 1024, (4, 4), 4), Level("layer4", 2048, (2, 2), 5),
]  # fmt: skip
SMALL = [Level("a", 5, (8, 8), 0), Level("b", 12, (4, 4), 1), Level("c", 20, (1, 1), 3)]


def maps_for(levels, n=2, size=None, **kwargs):
    """Random maps; `size` of the images, each level rounded up, in place of the levels' own sizes."""
    sizes = [level.size if size is None else [-(-side // 2**level.octave) for side in size] for level in levels]
    return [torch.randn(n, level.channels, *hw, **kwargs) for level, hw in zip(levels, sizes, strict=True)]


def widths(decoder):
    return [(block[0].in_channels, block[0].out_channels, block[3].out_channels) for block in decoder.blocks]


def test_a_step_has_16_channels_a_stride_but_no_more_than_256_or_the_encoder_and_16_at_least():
    assert widths(UNetDecoder(RESNET, 3)) == [
        (2048 + 1024, 256, 256), (256 + 512, 128, 128), (128 + 256, 64, 64), (64 + 64, 32, 32), (32, 16, 16),
    ]  # fmt: skip
    # An encoder of few channels: 12 and 5 are below the least.
    assert widths(UNetDecoder(SMALL, 1)) == [(20 + 12, 16, 16), (16 + 5, 16, 16)]
    narrow = [Level("a", 24, (16, 16), 2), Level("b", 40, (8, 8), 3)]
    assert widths(UNetDecoder(narrow, 1)) == [(40 + 24, 24, 24), (24, 24, 24), (24, 16, 16)]


def test_the_parameters_are_those_of_the_convolutions_and_norms():
    """Two 3x3 convolutions without bias and two GroupNorms a step, and a 1x1 convolution."""
    decoder = UNetDecoder(RESNET, 3)
    expected = sum(9 * cin * c + 9 * c * c + 4 * c for cin, c, _ in widths(decoder)) + 16 * 3 + 3
    assert sum(p.numel() for p in decoder.parameters()) == expected
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in decoder.modules())


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("levels", [RESNET, SMALL, RESNET[2:], RESNET[4:], RESNET[:1], SMALL[:1]], ids=len)
def test_the_result_has_the_images_size(levels, outputs):
    height = levels[0].size[0] * 2 ** levels[0].octave
    assert UNetDecoder(levels, outputs)(maps_for(levels, 3)).shape == (3, outputs, height, height)


@pytest.mark.parametrize("size", [(97, 131), (33, 64), (65, 1), (1, 1)])
def test_odd_sizes_follow_the_skips(size):
    """Each step takes the skip's size; behind the last skip a map is doubled, so that 97 pixels come out as 98."""
    drawn = UNetDecoder(RESNET, 2)(maps_for(RESNET, 1, size))
    assert drawn.shape == (1, 2, *(2 * -(-side // 2) for side in size))


def test_one_level_is_upsampling_step_by_step():
    torch.manual_seed(0)
    level = Level("a", 24, (3, 5), 2)
    decoder, (x,) = UNetDecoder([level], 2), maps_for([level])
    assert decoder.skips == 0
    expected = x
    for block in decoder.blocks:
        expected = block(expected.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(decoder([x]), decoder.out(expected))
    assert decoder([x]).shape == (2, 2, 12, 20)


def test_a_pyramid_is_joined_from_the_coarsest_up():
    """The steps by hand: upsample, the skip behind, two convolutions with their norms and ReLUs."""
    decoder, maps = UNetDecoder(SMALL, 2).double(), maps_for(SMALL, dtype=torch.float64)
    x = maps[2]
    for block, skip, scale in zip(decoder.blocks, (maps[1], maps[0]), (4, 2), strict=True):
        x = torch.cat([x.repeat_interleave(scale, 2).repeat_interleave(scale, 3), skip], 1)
        for i in (0, 3):
            x = F.conv2d(x, block[i].weight, padding=1)
            groups = x.unflatten(1, (-1, 8)).flatten(2)
            mean, var = groups.mean(2, keepdim=True), groups.var(2, correction=0, keepdim=True)
            normed = ((groups - mean) / (var + 1e-5).sqrt()).view_as(x)
            x = (normed * block[i + 1].weight.view(-1, 1, 1) + block[i + 1].bias.view(-1, 1, 1)).relu()
    expected = F.conv2d(x, decoder.out.weight, decoder.out.bias)
    torch.testing.assert_close(decoder(maps), expected, rtol=1e-10, atol=1e-10)


@given(seeds, st.integers(0, 2), st.booleans())
def test_an_image_is_drawn_from_its_own_maps_alone(seed, image, training):
    torch.manual_seed(seed)
    decoder = UNetDecoder(SMALL, 2).train(training)
    maps = [x.requires_grad_() for x in maps_for(SMALL, 3)]
    drawn = decoder(maps)
    for gradient in torch.autograd.grad(drawn[image].square().sum(), maps):
        others = [i for i in range(3) if i != image]
        assert not gradient[others].any()
        assert gradient[image].any()
    alone = decoder([x[image : image + 1] for x in maps])
    torch.testing.assert_close(drawn[image : image + 1], alone, rtol=1e-4, atol=1e-5)


def test_each_map_matters():
    decoder, maps = UNetDecoder(RESNET, 2), maps_for(RESNET)
    drawn = decoder(maps)
    for i in range(len(maps)):
        changed = [x + (j == i) for j, x in enumerate(maps)]
        assert not torch.allclose(decoder(changed), drawn, atol=1e-3)


def test_maps_come_as_views_of_channels_last_tensors_as_well():
    decoder, maps = UNetDecoder(SMALL, 2), maps_for(SMALL)
    views = [x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) for x in maps]
    torch.testing.assert_close(decoder(views), decoder(maps))


@pytest.mark.parametrize("training", [True, False])
def test_checkpointing_computes_each_step_again_and_changes_no_gradient(training):
    decoder, maps = UNetDecoder(SMALL, 2).train(training).double(), maps_for(SMALL, dtype=torch.float64)
    runs, gradients = [], []
    decoder.blocks[1].register_forward_pre_hook(lambda module, args: runs.append(1))
    for enable in (False, True, False):
        decoder.set_grad_checkpointing(enable)
        decoder.zero_grad()
        runs.clear()
        decoder(maps).square().sum().backward()
        gradients.append([p.grad.clone() for p in decoder.parameters()])
        assert len(runs) == 1 + (enable and training)
    for again in gradients[1:]:
        for ours, theirs in zip(again, gradients[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
