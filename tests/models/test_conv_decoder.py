import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attribguard.errors import RangeError, ShapeError
from attribguard.models import ConvDecoder, actdiff_cnn

CHANNELS, SIDES = (4, 6, 8, 10), (28, 14, 7, 3)
KINDS = [(skips, upsampling) for skips in (True, False) for upsampling in ("bilinear", "transposed")]


def maps_of(sides=SIDES, n=2, channels=CHANNELS):
    return [torch.randn(n, width, *(side if isinstance(side, tuple) else (side, side + 1)))
            for width, side in zip(channels, sides, strict=True)]  # fmt: skip


def stretching(small, large):
    """(large, small): linear interpolation between the centres of cells, the outermost value beyond them."""
    matrix = torch.zeros(large, small)
    for i in range(large):
        place = min(max((i + 0.5) * small / large - 0.5, 0.0), small - 1.0)
        left = min(int(place), max(small - 2, 0))
        matrix[i, left] += 1 - (place - left)
        matrix[i, min(left + 1, small - 1)] += place - left
    return matrix


def doubled(x, convolution):
    """A 2x2 transposed convolution of stride 2: every cell becomes four, each by a matrix of its own."""
    out = torch.zeros(len(x), convolution.out_channels, 2 * x.shape[2], 2 * x.shape[3])
    for i in range(2):
        for j in range(2):
            corner = torch.einsum("nchw,cd->ndhw", x, convolution.weight[:, :, i, j])
            out[:, :, i::2, j::2] = corner + convolution.bias[:, None, None]
    return out


def by_hand(decoder, maps, skips, upsampling):
    """Appendix B written out, from the decoder's own parameters."""
    convolutions = [m for m in decoder.modules() if isinstance(m, nn.Conv2d)]
    transposed = [m for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert len(convolutions) == 7 and len(transposed) == (3 if upsampling == "transposed" else 0)
    x = maps[3]
    for level in (2, 1, 0):
        x = doubled(x, transposed[2 - level]) if transposed else x
        height, width = (stretching(a, b) for a, b in zip(x.shape[2:], maps[level].shape[2:], strict=True))
        x = height @ x @ width.T
        x = torch.cat([maps[level], x], 1) if skips else x
        for convolution in convolutions[2 * (2 - level) : 2 * (2 - level) + 2]:
            x = F.conv2d(x, convolution.weight, convolution.bias, padding=1).clamp(min=0)
    return torch.einsum("nchw,dc->ndhw", x, convolutions[6].weight[:, :, 0, 0]) + convolutions[6].bias[:, None, None]


@pytest.mark.parametrize(("skips", "upsampling"), KINDS)
def test_the_decoder_is_that_of_appendix_b(skips, upsampling):
    decoder, maps = ConvDecoder(CHANNELS, 3, skips=skips, upsampling=upsampling), maps_of()
    expected = by_hand(decoder, maps, skips, upsampling)
    assert expected.shape == (2, 3, 28, 29) and expected.std() > 0
    torch.testing.assert_close(decoder(maps), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("upsampling", ["bilinear", "transposed"])
def test_skips_read_every_map_and_without_them_only_the_coarsest_is_read(norm, upsampling):
    for skips in (True, False):
        decoder = ConvDecoder(CHANNELS, 1, skips=skips, norm=norm, upsampling=upsampling)
        maps = [features.requires_grad_() for features in maps_of()]
        gradients = torch.autograd.grad(decoder(maps).square().sum(), maps, allow_unused=True)
        read = [gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients]
        assert read == [skips, skips, skips, True]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4),
    st.sampled_from(KINDS),
)
@settings(max_examples=30)
def test_maps_of_any_sizes_fit(sides, kind):
    skips, upsampling = kind
    decoder = ConvDecoder(CHANNELS[: len(sides)], 2, skips=skips, upsampling=upsampling)
    drawn = decoder(maps_of(sides, channels=CHANNELS[: len(sides)]))
    assert drawn.shape == (2, 2, *sides[0])
    assert drawn.isfinite().all()


@pytest.mark.parametrize(("skips", "upsampling"), KINDS)
def test_an_image_is_drawn_alike_beside_any_other(skips, upsampling):
    decoder, maps = ConvDecoder(CHANNELS, 1, skips=skips, upsampling=upsampling), maps_of(n=3)
    alone = decoder([features[1:2] for features in maps])
    torch.testing.assert_close(decoder(maps)[1:2], alone)


def test_batch_normalisation_is_before_every_relu_if_asked():
    decoder = ConvDecoder(CHANNELS, 1, skips=True, norm="batch")
    kinds = [type(layer) for block in decoder.blocks for layer in block]
    assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 6


@pytest.mark.parametrize(("skips", "upsampling"), KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_decoder_compiles_into_one_graph_with_the_same_gradients(skips, upsampling, checkpointing):
    decoder, maps = ConvDecoder(CHANNELS, 1, skips=skips, upsampling=upsampling), maps_of()
    expected = torch.autograd.grad(decoder(maps).square().sum(), list(decoder.parameters()))
    decoder.set_grad_checkpointing(checkpointing)
    compiled = torch.compile(decoder, fullgraph=True, backend="aot_eager")
    gradients = torch.autograd.grad(compiled(maps).square().sum(), list(decoder.parameters()))
    torch.testing.assert_close(gradients, expected)


def test_checkpointing_keeps_less_and_can_be_switched_off_again():
    decoder, maps = ConvDecoder(CHANNELS, 1, skips=True), maps_of()

    def kept():
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            decoder(maps)
        return sum(sizes)

    plain = kept()
    decoder.set_grad_checkpointing()
    assert kept() < plain / 2
    decoder.set_grad_checkpointing(False)
    assert kept() == plain


@pytest.mark.parametrize("skips", [True, False])
def test_it_decodes_the_maps_of_the_papers_encoder(skips):
    encoder, maps = actdiff_cnn(), []
    for name in ("block1", "block2", "block3", "block4"):
        encoder.get_submodule(name).register_forward_hook(lambda module, args, output: maps.append(output))
    encoder(torch.rand(2, 1, 28, 28))
    drawn = ConvDecoder([16, 32, 64, 128], 1, skips=skips)(maps)
    assert drawn.shape == (2, 1, 28, 28)
    drawn.sum().backward()
    # What the network classifies by enters the picture; the last linear layer does not.
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == ["fc.weight", "fc.bias"]


def test_maps_may_be_views_of_channels_last_tensors():
    decoder, maps = ConvDecoder(CHANNELS, 1, skips=True), maps_of()
    views = [features.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) for features in maps]
    torch.testing.assert_close(decoder(views), decoder(maps))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": 16}, "channels"),
        ({"channels": (16, 0)}, r"channels\[1\]"),
        ({"out_channels": 0}, "out_channels"),
        ({"norm": "group"}, "norm"),
        ({"upsampling": "nearest"}, "upsampling"),
    ],
)
def test_bad_options_are_refused_by_name(options, named):
    with pytest.raises(RangeError, match=named):
        ConvDecoder(**{"channels": CHANNELS, "out_channels": 1, "skips": True, **options})


@pytest.mark.parametrize("skips", [True, False])
def test_maps_of_another_encoder_are_refused(skips):
    decoder, maps = ConvDecoder(CHANNELS, 1, skips=skips), maps_of()
    for wrong in (maps[1:], maps[::-1], []):
        with pytest.raises(ShapeError, match=r"needed \(4, 6, 8, 10\), the finest map first"):
            decoder(wrong)
