"""The Swin-Unet decoder on timm's Swin: the published model's numbers, how mistakes show in them, and other sizes."""

import copy
from contextlib import contextmanager
from functools import cache, partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from attribguard.errors import ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.functional import dice_ce
from attribguard.heads.swin_decoder import SwinDecoder, find_swin
from attribguard.models.swin_unet_keys import load_into, translate
from tests import swin_unet_recipe as recipe
from tests.oracles import as_array
from tests.swin_unet_recipe import golden

TOLERANCE = {"small": 2e-5, "default": 1e-5}
ENCODED = ["skip0", "skip1", "skip2", "skip3", "stage0", "stage1", "stage2", "stage3", "feat", "gap", "cls"]
DECODED = ["dec_up0", "dec_fuse1", "dec_blocks1", "dec_up1", "dec_fuse2", "dec_blocks2", "dec_up2", "dec_fuse3"]
DECODED += ["dec_blocks3", "dec_norm_up", "seg", "rec"]
sizes = pytest.mark.parametrize("name", ["small", "default"])


@cache
def loaded(name, task="seg"):
    """Encoder and decoder with the recipe's weights; not to be changed, see `fresh`."""
    encoder = recipe.swin(name)
    decoder = SwinDecoder(encoder, {"seg": 2, "rec": 3}[task]).eval()
    tensors = recipe.encoder_state(name) | recipe.decoder_state(name, task) | recipe.classifier_state(name)
    assert load_into(encoder, decoder, tensors).not_loaded == ()
    return encoder, decoder


def fresh(name="small"):
    return copy.deepcopy(loaded(name))


@contextmanager
def recording(outputs, inputs=()):
    """A dictionary that fills with what these modules, by name, give out, and with what enters those of `inputs`."""
    seen = {}

    def keep(name, side):
        return lambda module, args, output: seen.update({name: output if side == "output" else args[0]})

    handles = [module.register_forward_hook(keep(name, "output")) for name, module in outputs.items()]
    handles += [module.register_forward_hook(keep(name, "input")) for name, module in dict(inputs).items()]
    yield seen
    for handle in handles:
        handle.remove()


def maps_of(encoder, x):
    """What the modules at the decoder's places give out, as (N, C, h, w)."""
    with recording({place: encoder.get_submodule(place) for place in SwinDecoder.places("", encoder)}) as seen:
        encoder(x)
    return [tokens.permute(0, 3, 1, 2) for tokens in seen.values()]


class Net(nn.Module):
    """Encoder and decoder as one network, the maps by hand: what enters each stage's blocks, and the last, normed."""

    def __init__(self, encoder, decoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x):
        x, maps = self.encoder.patch_embed(x), []
        for stage in self.encoder.layers:
            x = stage.downsample(x)
            maps.append(x)
            x = stage.blocks(x)
        maps[-1] = self.encoder.norm(x)
        return self.decoder([tokens.permute(0, 3, 1, 2) for tokens in maps])


@cache
@torch.enable_grad()
def recorded(name):
    """Every array that the golden file lists, from one forward and backward pass, and the gradients' norms by key."""
    encoder, decoder = loaded(name)
    outputs = {"skip0": encoder.patch_embed, "feat": encoder.norm, "cls": encoder, "dec_norm_up": decoder.norm}
    outputs |= {f"stage{i}": stage.blocks for i, stage in enumerate(encoder.layers)}
    outputs |= {f"skip{i}": encoder.layers[i].downsample for i in range(1, 4)}
    outputs |= {f"dec_fuse{i + 1}": fuse for i, fuse in enumerate(decoder.fuse)}
    outputs |= {f"dec_blocks{i + 1}": stage for i, stage in enumerate(decoder.stages)}
    inputs = {f"dec_up{i}": fuse for i, fuse in enumerate(decoder.fuse)}
    x = recipe.images(name).requires_grad_()
    with recording(outputs, inputs) as seen:
        maps = maps_of(encoder, x)
        seen["seg"] = decoder(maps)
    owned = {f"encoder.{key}": value for key, value in encoder.named_parameters() if not key.startswith("head.")}
    owned |= {f"decoder.{key}": value for key, value in decoder.named_parameters()}
    scalar = (seen["seg"] * recipe.upstream(seen["seg"].shape)).sum()
    seen["grad_input"], *gradients = torch.autograd.grad(scalar, [x, *owned.values()])
    for i in range(3):  # what was upsampled comes first in what is concatenated
        seen[f"dec_up{i}"] = seen[f"dec_up{i}"].chunk(2, -1)[0]
    seen["gap"] = seen["feat"].mean((1, 2))
    with torch.no_grad():
        seen["rec"] = loaded(name, "rec")[1](maps)
    norms = {key: gradient.double().norm().item() for key, gradient in zip(owned, gradients, strict=True)}
    return {key: value.detach() for key, value in seen.items()}, norms


@sizes
@pytest.mark.parametrize("array", ENCODED + DECODED)
def test_every_step_is_the_published_models(name, array):
    value, file = recorded(name)[0][array], golden(name)
    np.testing.assert_allclose(recipe.stored(name, value), file[array], rtol=0, atol=TOLERANCE[name])
    if f"{array}_shape" in file:
        complete = as_array(value)
        assert complete.shape == tuple(file[f"{array}_shape"])
        np.testing.assert_allclose(complete.mean(), file[f"{array}_mean"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(complete.std(), file[f"{array}_std"], rtol=0, atol=1e-6)


@sizes
def test_gradients_are_the_published_models(name):
    (seen, norms), file = recorded(name), golden(name)
    peak = np.abs(file["grad_input"]).max()
    np.testing.assert_allclose(recipe.stored(name, seen["grad_input"]), file["grad_input"], rtol=0, atol=1e-4 * peak)
    ours = [f"{part}.{key}" for part, key in translate(file["param_keys"].tolist()).values()]
    assert set(ours) == set(norms)
    np.testing.assert_allclose([norms[key] for key in ours], file["param_grad_norm"], rtol=1e-5)


def dice(logits, target, squared=False, classes=(0, 1)):
    """The trainer's Dice (`squared`) and the paper's, by numpy, over the batch."""
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    power, smooth = (2, 1e-5) if squared else (1, 0)
    values = []
    for k in classes:
        q, t = p[:, k], (target == k).astype(float)
        values.append(1 - (2 * (q * t).sum() + smooth) / ((q**power).sum() + (t**power).sum() + smooth))
    return np.mean(values)


@sizes
def test_losses_are_the_published_trainers(name):
    seen = recorded(name)[0]
    seg, target, labels = seen["seg"], recipe.masks(name), recipe.labels(name)
    got = {
        "cls": F.cross_entropy(seen["cls"], labels).item(),
        "rec": F.mse_loss(seen["rec"], recipe.images(name)).item(),
    }
    got["dice_paper_fg"] = dice(as_array(seg), target.numpy(), classes=[1])
    for rows, suffix, total in ((slice(None), "", "total"), (slice(1), "_image0", "total_seg_image0_only")):
        trainers = partial(dice_ce, seg[rows], target[rows], over="batch", squared=True)
        got[f"ce{suffix}"] = trainers(ce=1.0, dice=0.0).mean().item()
        got[f"dice_official{suffix}"] = trainers(ce=0.0, dice=1.0).mean().item()
        got[f"seg{suffix}"] = trainers().mean().item()
        got[total] = 0.3 * got["cls"] + 0.4 * got[f"seg{suffix}"] + 0.4 * got["rec"]
        oracle = dice(as_array(seg[rows]), target[rows].numpy(), squared=True)
        assert got[f"dice_official{suffix}"] == pytest.approx(oracle, rel=1e-5)
    papers = dice_ce(seg, target, ce=0.0, dice=1.0, over="batch", smooth=1e-13)
    got["dice_paper_mean2"] = papers.mean().item()
    file = dict(zip(golden(name)["loss_names"].tolist(), golden(name)["loss_values"].tolist(), strict=True))
    assert got == pytest.approx(file, rel=1e-5)


def stage_outputs_as_skips(decoder, maps):
    maps[:3] = [recorded("small")[0][f"stage{i}"].permute(0, 3, 1, 2) for i in range(3)]


def no_encoder_norm(decoder, maps):
    maps[3] = recorded("small")[0]["stage3"].permute(0, 3, 1, 2)


def skip_first_in_the_concatenation(decoder, maps):
    for fuse in decoder.fuse:
        fuse.weight.data = fuse.weight.data.roll(fuse.out_features, 1)


def channels_first_pixel_shuffle(decoder, maps):
    for by, expand in [(2, up.expand) for up in decoder.up] + [(4, decoder.final.expand)]:
        cells = expand.weight.data.view(-1, by, by, expand.in_features)
        expand.weight.data = cells.permute(1, 2, 0, 3).reshape(expand.weight.shape)


def rows_and_columns_of_the_pixels_swapped(decoder, maps):
    expand = decoder.final.expand
    cells = expand.weight.data.view(4, 4, -1, expand.in_features)
    expand.weight.data = cells.transpose(0, 1).reshape(expand.weight.shape)


def no_norm_before_the_pixels(decoder, maps):
    decoder.norm = nn.Identity()


def no_norm_of_the_pixels(decoder, maps):
    decoder.final.norm = nn.Identity()


def no_shift(decoder, maps):
    for stage in decoder.stages:
        for block in stage.blocks:
            block.shift_size, block.attn_mask = (0, 0), None


def no_shift_mask(decoder, maps):
    for stage in decoder.stages:
        for block in stage.blocks:
            block.attn_mask = None


def tanh_gelu(decoder, maps):
    for stage in decoder.stages:
        for block in stage.blocks:
            block.mlp.act = nn.GELU(approximate="tanh")


MISTAKES = [stage_outputs_as_skips, no_encoder_norm, skip_first_in_the_concatenation, channels_first_pixel_shuffle]
MISTAKES += [rows_and_columns_of_the_pixels_swapped, no_norm_before_the_pixels, no_norm_of_the_pixels, no_shift]
MISTAKES += [no_shift_mask, tanh_gelu]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_shows_in_the_golden_numbers(mistake):
    encoder, decoder = fresh()
    with torch.no_grad():
        maps = maps_of(encoder, recipe.images("small"))
        mistake(decoder, maps)
        error = np.abs(as_array(decoder(maps)) - golden("small")["seg"]).max()
    assert error > 10 * TOLERANCE["small"]


def test_norms_have_the_encoders_eps_which_is_the_published_one():
    """Another eps hardly shows in the numbers."""
    encoder = recipe.swin("small")
    norms = [module for module in SwinDecoder(encoder, 2).modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 3 * (1 + 2 * 2) + 2 and {norm.eps for norm in norms} == {1e-5}
    other = SwinDecoder(recipe.swin("small", norm_layer=partial(nn.LayerNorm, eps=1e-6)), 2)
    assert {module.eps for module in other.modules() if isinstance(module, nn.LayerNorm)} == {1e-6}


# Encoder, segmentation's decoder, both, reconstruction's decoder, classifier, everything.
COUNTS = {
    "default": [20_413_386, 6_754_842, 27_168_228, 6_754_938, 1_538, 33_924_704],
    "tiny": [27_519_354, 13_860_810, 41_380_164, 13_860_906, 1_538, 55_242_608],
    "base": [86_743_224, 62_477_944, 149_221_168, 62_478_072, 2_050, 211_701_290],
}


@pytest.mark.parametrize("name", ["small", *COUNTS])
def test_parameters_are_as_many_as_the_published_models(name):
    encoder = recipe.without_memory(lambda: recipe.swin(name))
    decoders = [recipe.without_memory(lambda outputs=outputs: SwinDecoder(encoder, outputs)) for outputs in (2, 3)]
    seg, rec = map(recipe.parameters, decoders)
    head = recipe.parameters(encoder.head)
    body = recipe.parameters(encoder) - head
    got = [body, seg, body + seg, rec, head, body + seg + rec + head]
    if name in COUNTS:
        assert got == COUNTS[name]
    if name in ("small", "default"):
        file = dict(zip(golden(name)["count_names"].tolist(), golden(name)["count_values"].tolist(), strict=True))
        parts = {"encoder": body, "seg_decoder": seg, "rec_decoder": rec, "cls_head": head}
        assert file == parts | {"total": sum(parts.values())}


def test_the_default_decoders_parts_have_the_published_sizes():
    decoder = recipe.without_memory(lambda: SwinDecoder(recipe.swin("default"), 2))
    counts = {key: [recipe.parameters(part) for part in getattr(decoder, key)] for key in ("stages", "up")}
    assert counts == {"stages": [3_552_984, 891_756, 224_694], "up": [1_180_416, 295_296, 73_920]}
    rest = [recipe.parameters(part) for part in (decoder.fuse, decoder.norm, decoder.final, decoder.out)]
    assert rest == [387_744, 192, 147_648, 192]


@pytest.mark.parametrize(("name", "billions"), [("default", 12.15), ("tiny", 17.82), ("base", 61.48)])
def test_a_pass_costs_as_much_as_the_published_models(name, billions):
    encoder = recipe.without_memory(lambda: recipe.swin(name))
    net = recipe.without_memory(lambda: Net(encoder, SwinDecoder(encoder, 2)))
    x = torch.empty(1, 3, 224, 224, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert counter.get_total_flops() / 1e9 == pytest.approx(billions, abs=0.01)


def plain_order(decoder, maps):
    """The end as published: pixels laid out first, with all their channels, then the norm and the 1x1 convolution."""
    with recording({"x": decoder.norm}) as seen:
        decoder(maps)
    n, height, width, channels = seen["x"].shape
    p, q = decoder.final.by
    cells = decoder.final.expand(seen["x"]).view(n, height, width, p, q, channels)
    pixels = decoder.final.norm(cells.permute(0, 1, 3, 2, 4, 5).reshape(n, height * p, width * q, channels))
    return decoder.out(pixels.permute(0, 3, 1, 2))


def test_the_pixels_are_those_of_the_plain_order():
    encoder, decoder = fresh()
    maps = [features.detach() for features in maps_of(encoder, recipe.images("small"))]
    seg, plain = decoder(maps), plain_order(decoder, maps)
    torch.testing.assert_close(seg, plain, rtol=0, atol=1e-5)
    ours, theirs = (torch.autograd.grad(each.square().mean(), decoder.parameters()) for each in (seg, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


class Shapes(TorchDispatchMode):
    """Collects the shapes of everything that is computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.seen |= {tuple(sorted(y.shape)) for y in [result] if isinstance(y, torch.Tensor)}
        return result


def test_no_tensor_has_all_channels_of_every_pixel_laid_out():
    encoder, decoder = fresh()
    with torch.no_grad():
        maps, full = maps_of(encoder, recipe.images("small")), (2, 24, 64, 64)
        with Shapes() as ours:
            decoder(maps)
        with Shapes() as plain:
            plain_order(decoder, maps)
    assert full not in ours.seen and full in plain.seen


SHAPES = {
    "two stages": {"img_size": 32, "depths": (2, 1), "num_heads": (1, 2)},
    "three stages, each another window and MLP": {
        "img_size": 64, "depths": (2, 3, 1), "num_heads": (1, 2, 4), "window_size": ((4, 4), (2, 4), (4, 4)),
        "mlp_ratio": (2.0, 4.0, 3.0), "head_dim": (4, 8, 4),
    },
    "five stages": {"img_size": 64, "depths": (1, 1, 1, 2, 1), "num_heads": (1, 1, 1, 2, 2)},
    "padded windows": {"img_size": 32, "depths": (2, 2), "num_heads": (1, 2), "window_size": 3},
    "images wider than high, patches of 2": {
        "img_size": (16, 48), "patch_size": 2, "depths": (2, 2), "num_heads": (1, 2), "drop_path_rate": 0.3,
    },
    "patches of 8 x 4": {"img_size": 32, "patch_size": (8, 4), "depths": (2, 2), "num_heads": (1, 2)},
    "a shift in a window of the map's size": {
        "img_size": 32, "depths": (2, 2), "num_heads": (1, 2), "window_size": 8, "always_partition": True,
    },
    "dropout, no bias": {
        "img_size": 32, "depths": (2, 2), "num_heads": (1, 2), "qkv_bias": False, "proj_drop_rate": 0.1,
        "attn_drop_rate": 0.2,
    },
    "one channel": {"img_size": 32, "depths": (2, 2), "num_heads": (1, 2), "in_chans": 1},
}  # fmt: skip


def little(**options):
    return SwinTransformer(**{"embed_dim": 8, "window_size": 4, "num_classes": 2, **options}).eval()


def image_for(encoder, n=2):
    return torch.randn(n, encoder.patch_embed.proj.in_channels, *encoder.patch_embed.img_size)


def kind_of(block):
    return repr(block), block.window_size, block.shift_size, block.attn.num_heads, block.attn.scale, block.dynamic_mask


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_the_decoder_mirrors_any_swin(options):
    encoder = little(**options)
    decoder, x = SwinDecoder(encoder, 3).eval(), image_for(encoder)
    assert SwinDecoder.places("", encoder)[0] == "patch_embed" and len(decoder.stages) == len(encoder.layers) - 1
    for stage, mirrored in zip(decoder.stages, reversed(encoder.layers[:-1]), strict=True):
        assert list(map(kind_of, stage.blocks)) == list(map(kind_of, mirrored.blocks))
        for ours, theirs in zip(stage.blocks, mirrored.blocks, strict=True):
            assert (ours.attn_mask is None) == (theirs.attn_mask is None)
            assert ours.attn_mask is None or torch.equal(ours.attn_mask, theirs.attn_mask)
    y = decoder(maps_of(encoder, x))
    assert y.shape == (2, 3, *x.shape[-2:])
    torch.testing.assert_close(Net(encoder, decoder)(x), y, rtol=0, atol=0)
    y.square().sum().backward()
    without = {key for key, value in Net(encoder, decoder).named_parameters() if value.grad is None}
    assert without == {"encoder.head.fc.weight", "encoder.head.fc.bias"}


def test_drop_path_rates_are_those_of_the_mirrored_stages():
    """0.2 rises linearly over the encoder's 8 blocks; a rate of 0 is no DropPath at all."""
    decoder = SwinDecoder(recipe.swin("small"), 2)
    rates = [[getattr(block.drop_path2, "drop_prob", 0) for block in stage.blocks] for stage in decoder.stages]
    assert rates == [pytest.approx([0.2 * i / 7, 0.2 * (i + 1) / 7]) for i in (4, 2, 0)]


def test_an_encoder_for_any_size_gives_a_decoder_for_any_size():
    encoder = little(img_size=32, depths=(2, 2, 2), num_heads=(1, 2, 4), strict_img_size=False)
    decoder = SwinDecoder(encoder, 1).eval()
    for size in ((32, 32), (16, 64), (96, 48)):
        assert decoder(maps_of(encoder, torch.randn(1, 3, *size))).shape == (1, 1, *size)
    with pytest.raises(ShapeError, match="maps of shapes"):
        decoder(maps_of(encoder, torch.randn(1, 3, 24, 32)))


def test_a_new_input_size_needs_a_new_decoder():
    encoder = little(img_size=32, depths=(2, 2), num_heads=(1, 2))
    old = SwinDecoder(encoder, 1)
    encoder.set_input_size((64, 32), window_size=4)
    maps = maps_of(encoder, torch.randn(1, 3, 64, 32))
    assert SwinDecoder(encoder, 1)(maps).shape == (1, 1, 64, 32)
    with pytest.raises(ShapeError, match="encoder was built for"):
        old(maps)


def test_samples_do_not_see_each_other():
    encoder, decoder = fresh()
    maps = maps_of(encoder, recipe.images("small"))
    with torch.no_grad():
        both, alone = decoder(maps), [decoder([features[i : i + 1] for features in maps]) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(alone), rtol=0, atol=1e-5)


def test_memory_formats_do_not_matter():
    encoder, decoder = fresh()
    x = recipe.images("small")
    with torch.no_grad():
        maps = maps_of(encoder, x)
        seg = decoder(maps)
        torch.testing.assert_close(decoder([features.contiguous() for features in maps]), seg, rtol=0, atol=1e-5)
        channels_last = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(Net(encoder, decoder)(channels_last), seg, rtol=0, atol=1e-5)


def test_autocast_to_bfloat16_stays_close_and_trains():
    net, x = Net(*fresh()), recipe.images("small")
    with torch.autocast("cpu", torch.bfloat16):
        seg = net(x)
    assert seg.dtype == torch.bfloat16
    assert (seg.float() - torch.from_numpy(golden("small")["seg"])).abs().mean() < 0.03  # of a deviation of 0.9
    seg.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.decoder.parameters())


def test_checkpointing_computes_twice_and_gives_the_same_gradients():
    encoder, decoder = fresh()
    decoder.train()  # with drop path, whose draws have to be the same in both computations
    maps = [features.detach() for features in maps_of(encoder, recipe.images("small"))]
    watched = {"stage": decoder.stages[1].blocks[1], "pixels": decoder.final}
    calls = dict.fromkeys(watched, 0)
    for key, module in watched.items():
        module.register_forward_pre_hook(lambda *_, key=key: calls.update({key: calls[key] + 1}))
    gradients = {}
    for enable in (False, True):
        decoder.set_grad_checkpointing(enable)
        calls.update(dict.fromkeys(calls, 0))
        torch.manual_seed(3)
        seg = decoder(maps)
        gradients[enable] = torch.autograd.grad(seg.square().mean(), decoder.parameters())
        assert calls == dict.fromkeys(calls, 2 if enable else 1)
    torch.testing.assert_close(gradients[True], gradients[False], rtol=0, atol=0)
    decoder.set_grad_checkpointing(False)
    assert not decoder.grad_checkpointing and not any(stage.grad_checkpointing for stage in decoder.stages)


def test_encoder_and_decoder_compile_to_one_graph():
    encoder = little(img_size=32, depths=(1, 1), num_heads=(1, 2))
    net = Net(encoder, SwinDecoder(encoder, 2))
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    parameters = list(net.decoder.parameters())
    y, expected = compiled(x), net(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
    ours, theirs = (torch.autograd.grad(each.square().mean(), parameters) for each in (y, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_parameters_start_as_in_the_published_code():
    decoder = SwinDecoder(recipe.swin("default"), 2)
    for module in decoder.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any()
    tables = [value for key, value in decoder.named_parameters() if key.endswith("table")]
    assert torch.cat([table.flatten() for table in tables]).std().item() == pytest.approx(0.02, rel=0.05)
    assert 0.08 < decoder.out.weight.abs().max() <= 96**-0.5  # uniform, PyTorch's own for 96 channels


def test_names_are_those_that_checkpoints_use():
    decoder = SwinDecoder(recipe.swin("small"), 2)
    assert [key for key, _ in decoder.named_children()] == ["up", "fuse", "stages", "norm", "final", "out"]
    assert decoder.out.weight.shape == (2, 24, 1, 1)


def test_mirroring_copies_the_encoders_blocks_and_leaves_21_tensors():
    encoder, _ = loaded("small")
    decoder = SwinDecoder(encoder, 2)
    before = copy.deepcopy(decoder.state_dict())
    assert decoder.mirror_(encoder) is decoder
    theirs, stayed = encoder.state_dict(), 0
    for key, value in decoder.state_dict().items():
        if key.startswith("stages."):
            _, i, rest = key.split(".", 2)
            assert torch.equal(value, theirs[f"layers.{2 - int(i)}.{rest}"])
        else:
            assert torch.equal(value, before[key])
            stayed += 1
    assert stayed == 21
    decoder.stages[2].blocks[0].norm1.bias.data += 1
    assert torch.equal(encoder.layers[0].blocks[0].norm1.bias, loaded("small")[0].layers[0].blocks[0].norm1.bias)


def test_mirroring_another_encoder_is_refused_and_changes_nothing():
    decoder = SwinDecoder(recipe.swin("small"), 2)
    before = copy.deepcopy(decoder.state_dict())
    for options in ({"depths": (2, 2, 1, 2)}, {"depths": (2, 2, 2)}, {"embed_dim": 48}, {"num_heads": (3, 6, 6, 24)}):
        with pytest.raises(ModelError, match="other sizes"):
            decoder.mirror_(recipe.swin("small", **options))
    with pytest.raises(TypeMismatchError, match="SwinTransformer"):
        decoder.mirror_(nn.Identity())
    assert all(torch.equal(value, before[key]) for key, value in decoder.state_dict().items())


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"img_size": 100}, ShapeError, "height divisible by 32 and a width divisible by 32"),
        (
            {"img_size": (64, 72), "patch_size": (4, 2)},
            ShapeError,
            "height divisible by 32 and a width divisible by 16",
        ),
        ({"depths": (2,), "num_heads": (2,)}, ModelError, r"depths \[2\]"),
        ({"depths": (2, 0, 2, 2)}, ModelError, r"depths \[2, 0, 2, 2\]"),
    ],
)
def test_an_encoder_that_cannot_be_mirrored_is_refused(options, kind, words):
    defaults = {"img_size": 64, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    with pytest.raises(kind, match=words):
        SwinDecoder(little(**defaults | options), 2)


@pytest.mark.parametrize(
    "encoder", [nn.Linear(2, 2), nn.Sequential(little(img_size=32, depths=(1, 1), num_heads=(1, 1)))]
)
def test_other_networks_are_refused_as_encoders(encoder):
    with pytest.raises(TypeMismatchError, match=type(encoder).__name__):
        SwinDecoder(encoder, 2)


@pytest.mark.parametrize("outputs", [0, -1, 2.0, True, None])
def test_bad_numbers_of_outputs_are_refused(outputs):
    with pytest.raises(RangeError, match="out_channels"):
        SwinDecoder(recipe.swin("small"), outputs)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda maps: [],
        lambda maps: maps[:3],
        lambda maps: maps[::-1],
        lambda maps: [*maps, maps[-1]],
        lambda maps: [features.permute(0, 2, 3, 1) for features in maps],
        lambda maps: [features.flatten(2) for features in maps],
        lambda maps: [features[..., :-2] for features in maps],
        lambda maps: [maps[0][:1], *maps[1:]],
        lambda maps: [features.repeat_interleave(2, 2) for features in maps],
    ],
)
def test_maps_of_another_network_or_size_are_refused(spoil):
    encoder, decoder = loaded("small")
    with torch.no_grad(), pytest.raises(ShapeError, match=r"needed maps of shapes \[\(\d, 24, 16, 16\), .*192, 2, 2"):
        decoder(spoil(maps_of(encoder, recipe.images("small"))))


def test_the_swin_in_a_network_is_found_by_name():
    encoder = little(img_size=32, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    assert find_swin(encoder) == ("", encoder)
    network = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Sequential(nn.Identity(), encoder)})
    name, found = find_swin(network)
    assert found is encoder
    modules = dict(network.named_modules())
    places = SwinDecoder.places(name, found)
    assert places == ("b.1.patch_embed", "b.1.layers.1.downsample", "b.1.layers.2.downsample", "b.1.norm")
    assert modules.keys() >= set(places)
    for other in (nn.Identity(), nn.ModuleList([encoder, copy.deepcopy(encoder)])):
        with pytest.raises(ModelError, match="exactly one"):
            find_swin(other)
