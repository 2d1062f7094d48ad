"""MTL-Swin-Unet as a guard: the published numbers through `wrap`, its variants, its pretraining, its checkpoints."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import attribguard as ag
from attribguard.errors import AttribGuardError, DataError, ModelError, RangeError, ShapeError
from attribguard.models import load_swin_unet_state_dict, mtl_swin_unet
from tests import swin_unet_recipe as recipe
from tests.models.weight_files import write_weights
from tests.swin_unet_recipe import golden

TOLERANCE = {"small": 2e-5, "default": 1e-5}
SMALL = {key: value for key, value in recipe.SIZES["small"].items() if key != "num_heads"}


class Operators(TorchDispatchMode):
    """Writes down every operator that runs."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def operators(call, x):
    with Operators() as mode, torch.no_grad():
        call(x)
    return mode.names


def trainer_losses():
    """Heads whose segmentation loss is the published trainer's, over the batch with squares."""
    return [
        ag.SegmentationHead(2, weight=0.4, over="batch", squared=True, decoder="swin"),
        ag.ReconstructionHead(weight=0.4, decoder="swin"),
    ]


def loaded(name, **options):
    """The guard with the recipe's weights, in eval mode."""
    guard = mtl_swin_unet(**recipe.SIZES[name], **options)
    for head, task in (("segmentation", "seg"), ("reconstruction", "rec")):
        tensors = recipe.encoder_state(name) | recipe.decoder_state(name, task) | recipe.classifier_state(name)
        assert load_swin_unet_state_dict(guard, tensors, head).not_loaded == ()
    return guard.eval()


def close(ours, name, key):
    theirs = torch.from_numpy(golden(name)[key]).double()
    torch.testing.assert_close(
        torch.from_numpy(recipe.stored(name, ours)).double(), theirs, rtol=0, atol=TOLERANCE[name], msg=key
    )


@pytest.mark.parametrize("name", ["small", "default"])
def test_all_three_tasks_give_the_published_numbers(name):
    out = loaded(name).predict(recipe.images(name))
    close(out.logits, name, "cls")
    close(out.predictions["segmentation"], name, "seg")
    close(out.predictions["reconstruction"], name, "rec")


@pytest.mark.parametrize("name", ["small", "default"])
def test_the_gradient_reaches_the_image_as_published(name):
    x = recipe.images(name).requires_grad_()
    seg = loaded(name).predict(x, heads=["segmentation"]).predictions["segmentation"]
    (seg * recipe.upstream(seg.shape)).sum().backward()
    theirs = torch.from_numpy(golden(name)["grad_input"]).double()
    difference = torch.from_numpy(recipe.stored(name, x.grad)).double() - theirs
    assert difference.abs().max() <= 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("annotated", [[True, True], [True, False]])
def test_the_steps_terms_and_total_are_the_published_trainers(annotated):
    losses = dict(zip(golden("small")["loss_names"].tolist(), golden("small")["loss_values"].tolist(), strict=True))
    guard = loaded("small", tasks=("cls",), heads=trainer_losses(), reduction="annotated")
    x, rows = recipe.images("small"), {"segmentation": torch.tensor(annotated)}
    out = guard(x, recipe.labels("small"), segmentation=recipe.masks("small"), annotated=rows)
    total = "total" if all(annotated) else "total_seg_image0_only"
    assert out.weights == {"criterion": 0.3, "segmentation": 0.4, "reconstruction": 0.4}
    assert out.terms["reconstruction"].item() == pytest.approx(losses["rec"], rel=1e-5)
    assert out.terms["criterion"].item() == pytest.approx(losses["cls"], rel=1e-5)
    if all(annotated):
        assert out.terms["segmentation"].item() == pytest.approx(losses["seg"], rel=1e-5)
    assert out.loss.item() == pytest.approx(losses[total], rel=1e-5)


@pytest.mark.parametrize(("size", "parameters"), [("default", 33_924_704), ("tiny", 55_242_608)])
def test_each_size_has_the_published_number_of_parameters(size, parameters):
    assert recipe.parameters(mtl_swin_unet(size)) == parameters


VARIANTS = {
    ("cls",): (["criterion"], []),
    ("cls", "rec"): (["criterion", "reconstruction"], ["reconstruction"]),
    ("cls", "seg"): (["criterion", "segmentation"], ["segmentation"]),
    ("cls", "seg", "rec"): (["criterion", "segmentation", "reconstruction"], ["segmentation", "reconstruction"]),
    ("seg",): (["segmentation"], ["segmentation"]),
    ("rec", "seg"): (["reconstruction", "segmentation"], ["reconstruction", "segmentation"]),
}


@pytest.mark.parametrize("tasks", VARIANTS, ids="+".join)
def test_every_variant_of_the_paper_is_one_argument_away(tasks):
    guard = mtl_swin_unet(**SMALL, tasks=tasks)
    terms, heads = VARIANTS[tasks]
    x, seg = recipe.images("small"), recipe.masks("small")
    out = guard(x, torch.tensor([0, 1]) if "cls" in tasks else None, segmentation=seg)
    out.loss.backward()
    assert list(out.terms) == terms and list(out.predictions) == list(guard.heads) == heads
    assert all(p.grad is not None for p in guard.parameters())
    guard.eval()
    torch.testing.assert_close(
        guard(x), guard.model(x) if "cls" in tasks else guard.predict(x).predictions[heads[0]], rtol=0, atol=0
    )


def test_inference_runs_the_classifiers_operators_and_no_decoder():
    guard = mtl_swin_unet(**SMALL).eval()
    x = recipe.images("small")
    expected = operators(guard.model, x)
    guard(x, torch.tensor([0, 1]), segmentation=recipe.masks("small"))
    assert operators(guard, x) == expected
    assert len(operators(lambda x: guard.predict(x, heads=["segmentation"]), x)) < len(operators(guard.predict, x))


def test_options_go_to_wrap_and_further_heads_stand_beside_the_papers():
    extra = ag.SegmentationHead(3, weight=0.1, name="vessels", decoder="plain")
    penalties = [ag.ActDiff(1.0, layers="layers.*.blocks.*")]
    guard = mtl_swin_unet(**SMALL, heads=[extra], penalties=penalties, criterion_weight=2.0)
    out = guard(recipe.images("small"), torch.tensor([0, 1]), mask=recipe.masks("small"))
    assert list(out.terms) == ["criterion", "segmentation", "reconstruction", "vessels", "actdiff"]
    assert out.weights["criterion"] == 2.0


def test_one_graph_holds_the_heads_and_a_penalty():
    options = SMALL | {"depths": (1, 1, 1, 1), "drop_path": 0.0}
    guard = mtl_swin_unet(**options, penalties=[ag.ActDiff(1.0, corruption="zero")])
    x, y, seg = recipe.images("small"), torch.tensor([0, 1]), recipe.masks("small")
    expected = guard(x, y, segmentation=seg, mask=seg)
    torch._dynamo.reset()
    compiled = torch.compile(guard, backend="aot_eager", fullgraph=True)(x, y, segmentation=seg, mask=seg)
    torch.testing.assert_close(compiled.loss, expected.loss, rtol=1e-5, atol=1e-6)


def test_checkpointing_encoder_and_decoders_changes_no_gradient():
    guard = mtl_swin_unet(**SMALL, drop_path=0.0)
    x, seg = recipe.images("small"), recipe.masks("small")

    def gradients():
        guard.zero_grad()
        guard(x, torch.tensor([0, 1]), segmentation=seg).loss.backward()
        return [p.grad.clone() for p in guard.parameters()]

    plain = gradients()
    guard.set_grad_checkpointing()
    assert guard.model.layers[0].grad_checkpointing and guard.heads["reconstruction"].decoder.grad_checkpointing
    torch.testing.assert_close(gradients(), plain, rtol=1e-5, atol=1e-7)


def test_bf16_autocast_keeps_the_loss():
    guard = loaded("small")
    x, y, seg = recipe.images("small"), recipe.labels("small"), recipe.masks("small")
    expected = guard(x, y, segmentation=seg)
    with torch.autocast("cpu", torch.bfloat16):
        out = guard(x, y, segmentation=seg)
    assert out.predictions["segmentation"].dtype == torch.bfloat16 and out.loss.dtype == torch.float32
    torch.testing.assert_close(out.loss, expected.loss, rtol=2e-2, atol=0)


def test_images_of_one_channel_and_of_two_sides_fit():
    guard = mtl_swin_unet(embed_dim=24, window_size=4, img_size=(64, 96), in_chans=1, tasks=("seg", "rec"))
    predictions = guard.predict(torch.rand(1, 1, 64, 96)).predictions
    assert predictions["segmentation"].shape == (1, 2, 64, 96)
    assert predictions["reconstruction"].shape == (1, 1, 64, 96)


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory):
    """A file with weights of timm's swin-tiny, as a download would bring them, and its tensors."""
    path = tmp_path_factory.mktemp("weights") / "swin_tiny.pth"
    source = write_weights("swin_tiny_patch4_window7_224", path).state_dict()
    return {"pretrained": True, "pretrained_cfg_overlay": {"file": str(path)}, "img_size": 64}, source


def test_a_pretraining_starts_the_encoder_and_the_mirrored_decoders(pretraining):
    options, source = pretraining
    guard = mtl_swin_unet(**options)
    same = [key for key, value in guard.model.named_parameters() if "bias_table" not in key and "head" not in key]
    assert len(same) > 90 and all(torch.equal(guard.model.get_parameter(key), source[key]) for key in same)
    for head in guard.heads.values():
        for decoder_stage, encoder_stage in ((0, 2), (1, 1), (2, 0)):
            theirs = guard.model.layers[encoder_stage].blocks.state_dict()
            ours = head.decoder.stages[decoder_stage].blocks.state_dict()
            assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_without_mirror_the_decoders_start_at_random(pretraining):
    options, source = pretraining
    guard = mtl_swin_unet(**options, mirror=False)
    ours = guard.heads["segmentation"].decoder.stages[2].blocks[0].mlp.fc1.weight
    assert not torch.equal(ours, source["layers.0.blocks.0.mlp.fc1.weight"])


def test_a_swin_unet_checkpoint_loads_by_its_own_keys_and_the_report_says_what_stayed():
    guard = mtl_swin_unet(**SMALL)
    tensors = recipe.encoder_state("small") | recipe.decoder_state("small")
    report = load_swin_unet_state_dict(guard, tensors)
    assert report.not_loaded == ("encoder.head.fc.weight", "encoder.head.fc.bias")
    assert len(report.loaded) == len(tensors) and report.ignored == ()
    close(guard.eval().predict(recipe.images("small")).predictions["segmentation"], "small", "seg")


def test_swin_unet_alone_takes_its_checkpoint_whole():
    guard = mtl_swin_unet(**SMALL, tasks=("seg",)).eval()
    tensors = recipe.encoder_state("small") | recipe.decoder_state("small")
    assert load_swin_unet_state_dict(guard, tensors).not_loaded == ()
    close(guard(recipe.images("small")), "small", "seg")


def test_a_classifiers_checkpoint_loads_where_there_is_no_decoder():
    guard = mtl_swin_unet(**SMALL, tasks=("cls",)).eval()
    tensors = recipe.encoder_state("small") | recipe.classifier_state("small")
    assert load_swin_unet_state_dict(guard, tensors).not_loaded == ()
    close(guard(recipe.images("small")), "small", "cls")


def misfits():
    tensors = recipe.encoder_state("small") | recipe.decoder_state("small")
    short = {key: value for key, value in tensors.items() if key != "norm_up.bias"}
    return {
        "another size": (tensors | {"norm.weight": torch.zeros(7)}, "segmentation", ShapeError, r"norm\.weight \(7,\)"),
        "a missing key": (short, "segmentation", DataError, r"decoder\.norm\.bias"),
        "an unknown key": (tensors | {"ape": torch.zeros(1)}, "segmentation", DataError, "ape"),
        "the wrong decoder": (tensors, "reconstruction", ShapeError, r"output\.weight"),
        "an unknown head": (tensors, "depth", RangeError, "'depth'"),
    }


@pytest.mark.parametrize("case", misfits())
def test_a_checkpoint_that_does_not_fit_is_one_clear_error_and_changes_nothing(case):
    tensors, decoder, kind, words = misfits()[case]
    guard = mtl_swin_unet(**SMALL)
    before = {key: value.clone() for key, value in guard.state_dict().items()}
    with pytest.raises(kind, match=words):
        load_swin_unet_state_dict(guard, tensors, decoder)
    assert all(torch.equal(value, before[key]) for key, value in guard.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "huge"}, "'huge'"),
        ({"tasks": ()}, "tasks"),
        ({"tasks": ("cls", "cls")}, "each once"),
        ({"tasks": ("cls", "depth")}, "'depth'"),
        ({"img_size": 72}, "divisible"),
        ({"seg_classes": 0}, "num_classes"),
        ({"drop_path": 1.0}, "drop_path"),
    ],
)
def test_an_option_that_cannot_be_is_one_clear_error(options, words):
    with pytest.raises(AttribGuardError, match=words):
        mtl_swin_unet(**(SMALL | options))


def test_a_head_without_a_swin_decoder_takes_no_swin_unet_checkpoint():
    guard = ag.wrap(recipe.swin("small"), heads=[ag.SegmentationHead(2, 1.0)], example_input=(3, 64, 64))
    with pytest.raises(ModelError, match="UNetDecoder"):
        load_swin_unet_state_dict(guard, recipe.encoder_state("small"))
