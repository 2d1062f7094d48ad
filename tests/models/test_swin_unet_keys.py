"""Published checkpoints: where each key goes, what is refused, and that nothing changes when something is."""

import copy
import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import DataError, RangeError, ShapeError, TypeMismatchError
from attribguard.heads.swin_decoder import SwinDecoder
from attribguard.models.swin_unet_keys import load_into, read_checkpoint, translate, unwrap
from tests import swin_unet_recipe as recipe

# From the table of facts on the published code, not from the rules.
TABLE = [
    ("patch_embed.proj.weight", "encoder", "patch_embed.proj.weight"),
    ("patch_embed.norm.bias", "encoder", "patch_embed.norm.bias"),
    ("layers.0.blocks.1.attn.qkv.bias", "encoder", "layers.0.blocks.1.attn.qkv.bias"),
    ("layers.2.blocks.17.mlp.fc2.weight", "encoder", "layers.2.blocks.17.mlp.fc2.weight"),
    (
        "layers.3.blocks.0.attn.relative_position_bias_table",
        "encoder",
        "layers.3.blocks.0.attn.relative_position_bias_table",
    ),
    ("layers.0.downsample.norm.weight", "encoder", "layers.1.downsample.norm.weight"),
    ("layers.2.downsample.reduction.weight", "encoder", "layers.3.downsample.reduction.weight"),
    ("norm.weight", "encoder", "norm.weight"),
    ("head.weight", "classifier", "head.fc.weight"),
    ("head.bias", "classifier", "head.fc.bias"),
    ("layers_up.0.expand.weight", "decoder", "up.0.expand.weight"),
    ("layers_up.0.norm.bias", "decoder", "up.0.norm.bias"),
    ("concat_back_dim.1.weight", "decoder", "fuse.0.weight"),
    ("concat_back_dim.3.bias", "decoder", "fuse.2.bias"),
    ("layers_up.1.blocks.0.norm1.weight", "decoder", "stages.0.blocks.0.norm1.weight"),
    ("layers_up.3.blocks.1.mlp.fc1.bias", "decoder", "stages.2.blocks.1.mlp.fc1.bias"),
    ("layers_up.1.upsample.expand.weight", "decoder", "up.1.expand.weight"),
    ("layers_up.2.upsample.norm.weight", "decoder", "up.2.norm.weight"),
    ("norm_up.bias", "decoder", "norm.bias"),
    ("up.expand.weight", "decoder", "final.expand.weight"),
    ("up.norm.weight", "decoder", "final.norm.weight"),
    ("output.weight", "decoder", "out.weight"),
]


def swin_unet(task="seg"):
    return recipe.encoder_state("small") | recipe.decoder_state("small", task)


def classifier():
    return recipe.encoder_state("small") | recipe.classifier_state("small")


def networks(outputs=2, **options):
    encoder = recipe.swin("small", **options)
    return encoder, SwinDecoder(encoder, outputs)


def numbers(*modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def refuses(kind, words, encoder, decoder, checkpoint, **options):
    """Loading raises this error and leaves every parameter as it was."""
    modules = [module for module in (encoder, decoder) if module is not None]
    before = numbers(*modules)
    with pytest.raises(kind, match=words):
        load_into(encoder, decoder, checkpoint, **options)
    assert all(map(torch.equal, before, numbers(*modules)))


@pytest.mark.parametrize(("key", "part", "ours"), TABLE)
def test_a_key_goes_where_the_table_says(key, part, ours):
    assert translate([key]) == {key: (part, ours)}


def test_the_keys_fill_encoder_classifier_and_decoder_exactly():
    """In size "default": each place once, in its shape, and none is left."""
    checkpoint = recipe.encoder_state("default") | recipe.decoder_state("default") | recipe.classifier_state("default")
    encoder = recipe.without_memory(lambda: recipe.swin("default"))
    decoder = recipe.without_memory(lambda: SwinDecoder(encoder, 2))
    places = {
        ("decoder" if part == "decoder" else "encoder", ours): key
        for key, (part, ours) in translate(checkpoint).items()
    }
    assert len(places) == len(checkpoint)
    shapes = {("encoder", key): value.shape for key, value in encoder.state_dict().items()}
    shapes |= {("decoder", key): value.shape for key, value in decoder.state_dict().items()}
    assert {place: checkpoint[key].shape for place, key in places.items()} == shapes


def test_buffers_have_no_place():
    buffers = recipe.buffers("default")
    assert len(buffers) == 20 and translate(buffers) == {}


@pytest.mark.parametrize(
    "key",
    [
        "absolute_pos_embed",
        "layers.0.extra.weight",
        "head.fc.weight",
        "layers_up.0.blocks.0.norm1.weight",
        "layers_up.0.upsample.norm.weight",
        "concat_back_dim.0.weight",
        "decoder.norm.weight",
        "patch_embed.weight",
        "norms.weight",
    ],
)
def test_unknown_keys_are_named(key):
    with pytest.raises(DataError, match=f"unknown keys {key}; needed"):
        translate(["norm.weight", key])


def test_long_lists_of_keys_are_cut_and_counted():
    with pytest.raises(DataError, match=r"x0, x1, .*x7 and 92 more"):
        translate([f"x{i}" for i in range(100)])


@given(
    prefixes=st.lists(st.sampled_from(["module.", "_orig_mod.", "swin_unet."]), max_size=3),
    containers=st.lists(st.sampled_from(["model", "state_dict"]), max_size=2),
)
def test_what_is_around_the_tensors_is_taken_off(prefixes, containers):
    inner = {"norm.weight": torch.ones(2), "norm.bias": torch.zeros(2)}
    wrapped = {"".join(prefixes) + key: value for key, value in inner.items()}
    for name in containers:
        wrapped = {"epoch": 7, name: wrapped, "optimizer": {"lr": 0.1}}
    unwrapped = unwrap(wrapped)
    assert unwrapped.keys() == inner.keys()
    assert all(unwrapped[key] is value for key, value in inner.items())


def test_a_beginning_that_not_all_keys_share_stays():
    assert list(unwrap({"module.a": torch.ones(1), "b": torch.ones(1)})) == ["module.a", "b"]


@pytest.mark.parametrize(
    ("checkpoint", "kind", "words"),
    [
        (None, TypeMismatchError, "NoneType"),
        ([torch.ones(1)], TypeMismatchError, "list"),
        (torch.nn.Linear(1, 1), TypeMismatchError, "Linear"),
        ({}, DataError, "empty"),
        ({"model": {}}, DataError, "empty"),
        ({"norm.bias": torch.ones(1), "epoch": 3}, DataError, "epoch"),
        ({"optimizer": {"lr": 0.1}}, DataError, "optimizer"),
        ({3: torch.ones(1)}, DataError, "with 3"),
    ],
)
def test_what_holds_no_state_dict_is_refused(checkpoint, kind, words):
    with pytest.raises(kind, match=words):
        unwrap(checkpoint)


def test_a_swin_unet_loads_whole_but_for_the_classifier():
    encoder, decoder = networks()
    head = encoder.head.fc.weight.clone()
    checkpoint, buffers = swin_unet(), recipe.buffers("small")
    report = load_into(encoder, decoder, {"model": checkpoint | buffers})
    assert set(report.ignored) == set(buffers)
    assert set(report.not_loaded) == {"encoder.head.fc.weight", "encoder.head.fc.bias"}
    assert len(report.loaded) == len(checkpoint)
    assert torch.equal(encoder.head.fc.weight, head)
    own = {"encoder": encoder.state_dict(), "decoder": decoder.state_dict()}
    for key, part, ours in TABLE:
        if key in checkpoint:
            assert torch.equal(own[part][ours], checkpoint[key]) and f"{part}.{ours}" in report.loaded


@pytest.mark.parametrize("with_decoder", [False, True])
def test_a_classifier_loads_and_leaves_the_decoder_as_it_is(with_decoder):
    encoder, decoder = networks()
    before = numbers(decoder)
    report = load_into(encoder, decoder if with_decoder else None, classifier())
    assert torch.equal(encoder.head.fc.bias, classifier()["head.bias"])
    assert all(map(torch.equal, before, numbers(decoder)))
    assert len(report.loaded) == len(classifier()) and report.ignored == ()
    assert len(report.not_loaded) == (len(before) if with_decoder else 0)


def test_parts_that_are_skipped_stay_and_are_reported():
    encoder, decoder = networks()
    before = numbers(encoder)
    report = load_into(encoder, decoder, swin_unet(), skip=["encoder"])
    assert all(map(torch.equal, before, numbers(encoder)))
    assert set(report.ignored) == set(recipe.encoder_state("small"))
    assert len(report.loaded) == len(recipe.decoder_state("small"))
    assert "encoder.norm.weight" in report.not_loaded


def test_a_classifier_of_other_classes_is_refused_or_skipped():
    imagenet = classifier() | {"head.weight": torch.ones(1000, 192), "head.bias": torch.ones(1000)}
    encoder, decoder = networks()
    refuses(ShapeError, r"head.weight \(1000, 192\) for \(2, 192\)", encoder, decoder, imagenet)
    report = load_into(encoder, decoder, imagenet, skip=["classifier"])
    assert torch.equal(encoder.norm.bias, imagenet["norm.bias"])
    assert set(report.ignored) == {"head.weight", "head.bias"}


def test_a_decoders_tensors_without_a_decoder_are_refused_or_skipped():
    encoder, _ = networks()
    refuses(DataError, "concat_back_dim.1.bias", encoder, None, swin_unet())
    report = load_into(encoder, None, swin_unet(), skip=["decoder"])
    assert set(report.ignored) == set(recipe.decoder_state("small"))


def test_a_decoder_for_reconstruction_takes_a_checkpoint_of_as_many_outputs():
    encoder, decoder = networks(outputs=3)
    report = load_into(encoder, decoder, swin_unet("rec"))
    assert "decoder.out.weight" in report.loaded
    assert torch.equal(decoder.out.weight, swin_unet("rec")["output.weight"])
    refuses(ShapeError, r"output.weight \(2, 24, 1, 1\) for \(3, 24, 1, 1\)", encoder, decoder, swin_unet())


def test_a_checkpoint_of_another_size_is_refused_with_both_shapes():
    narrow = r"layers.0.blocks.0.attn.proj.weight \(24, 24\) for \(48, 48\).* more"
    refuses(ShapeError, narrow, *networks(embed_dim=48), swin_unet())
    window = r"layers.0.blocks.0.attn.relative_position_bias_table \(49, 3\) for \(225, 3\)"
    refuses(ShapeError, window, *networks(window_size=8), swin_unet())


def test_keys_without_a_place_and_places_without_a_key_are_refused_by_name():
    refuses(DataError, "layers.2.blocks.1.attn.proj.bias", *networks(depths=(2, 2, 1, 2)), swin_unet())
    refuses(DataError, "without encoder.layers.2.blocks.2", *networks(depths=(2, 2, 3, 2)), swin_unet())
    refuses(DataError, "unknown keys extra.weight", *networks(), swin_unet() | {"extra.weight": torch.ones(1)})
    for key, ours in (("norm_up.bias", "decoder.norm.bias"), ("norm.bias", "encoder.norm.bias")):
        lacking = {name: value for name, value in swin_unet().items() if name != key}
        refuses(DataError, f"with nothing that the network lacks, and without {ours};", *networks(), lacking)
    only_weight = {key: value for key, value in classifier().items() if key != "head.bias"}
    refuses(DataError, "without encoder.head.fc.bias", *networks(), only_weight)


def test_timms_own_names_are_refused():
    encoder, decoder = networks()
    own = copy.deepcopy(encoder.state_dict())
    refuses(DataError, "unknown keys head.fc.weight, head.fc.bias.*with timm", encoder, decoder, own)
    headless = {key: value for key, value in own.items() if not key.startswith("head.")}
    refuses(DataError, "with layers.3.downsample.*without encoder.layers.1.downsample", encoder, decoder, headless)


@pytest.mark.parametrize("skip", [["head"], "classifier", [None]])
def test_unknown_parts_to_skip_are_refused(skip):
    refuses(RangeError, "skip=", *networks(), swin_unet(), skip=skip)


def test_a_report_cannot_be_changed():
    report = load_into(recipe.swin("small"), None, classifier())
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.loaded = ()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_is_read_as_it_was_saved(tmp_path, zipped):
    saved = {"epoch": 1, "state_dict": {f"module.{key}": value for key, value in classifier().items()}}
    torch.save(saved, tmp_path / "swin.pth", _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(str(tmp_path / "swin.pth"))
    assert read.keys() == classifier().keys()
    assert all(torch.equal(read[key], value) for key, value in classifier().items())
    assert len(load_into(recipe.swin("small"), None, read).loaded) == len(read)


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_file_with_code_is_refused_and_the_code_not_run(tmp_path):
    torch.save({"model": classifier(), "config": Trap(tmp_path / "sprung")}, tmp_path / "swin.pth")
    with pytest.raises(DataError, match=r"swin.pth, which holds more than tensors.*run code"):
        read_checkpoint(tmp_path / "swin.pth")
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "swin.pth", weights_only=False)
    assert (tmp_path / "sprung").exists()  # the trap is one


@pytest.mark.parametrize("kept", [0, 1, 10, 200, 0.5, 0.99])
def test_damaged_files_are_refused(tmp_path, kept):
    file = tmp_path / "swin.pth"
    torch.save(recipe.classifier_state("small"), file)
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(DataError, match=r"swin\.pth"):
        read_checkpoint(file)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "text.pth").write_text("weights\n")
    (tmp_path / "list.pth").write_bytes(pickle.dumps([1, 2]))
    torch.save([torch.ones(1)], tmp_path / "tensors.pth")
    for name in ("text.pth", "list.pth", "missing.pth", "."):
        with pytest.raises(DataError):
            read_checkpoint(tmp_path / name)
    with pytest.raises(TypeMismatchError, match="list"):
        read_checkpoint(tmp_path / "tensors.pth")
