"""What every head promises: where its parameters live, what it reads, what it costs, and what it leaves alone."""

import copy
import gc
import io
import pickle
import weakref
from collections import OrderedDict

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import attribguard as ag
from attribguard.capture import is_hooked
from attribguard.errors import LayerError, ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.functional import class_activation_map, gradcam_rrr, normalize_map
from attribguard.masks import resize
from tests.heads.small import PARTLY, SHAPE, annotated_batch, both, gradients, guarded, strided
from tests.networks import PairOutput, plain_cnn


class Draw(nn.Module):
    """A decoder of one's own: a 1x1 convolution of the coarsest map."""

    def __init__(self, channels=8, outputs=2, *first):
        super().__init__()
        self.first, self.conv = nn.Sequential(*first), nn.Conv2d(channels, outputs, 1)
        self.calls = []

    def forward(self, maps):
        self.calls.append([tuple(x.shape) for x in maps])
        return self.conv(self.first(maps[-1]))


def step(guard, x, y, mask, segmentation, **more):
    guard.zero_grad()
    out = guard(x, y, mask=mask, segmentation=segmentation, **more)
    out.loss.backward()
    return out


# Parameters ----------------------------------------------------------------------------------------------------------


def test_a_heads_parameters_lie_under_its_name_behind_the_models():
    guard = guarded([ag.SegmentationHead(2, 0.4), ag.ReconstructionHead(0.3, name="redraw")])
    keys = list(guard.state_dict())
    ours = [key for key in keys if not key.startswith("model.")]
    assert [key for key in keys if key not in ours] == [f"model.{key}" for key in guard.model.state_dict()]
    assert {".".join(key.split(".")[:3]) for key in ours} == {"heads.segmentation.decoder", "heads.redraw.decoder"}
    assert ours == [f"heads.{key}" for key in guard.heads.state_dict()]
    assert {id(p) for p in guard.heads.parameters()} < {id(p) for p in guard.parameters()}


def test_a_state_dict_saved_with_weights_only_gives_the_same_predictions():
    guard, other = guarded(), guarded()
    x, *_ = annotated_batch()
    assert not torch.equal(guard.predict(x).predictions["segmentation"], other.predict(x).predictions["segmentation"])
    file = io.BytesIO()
    torch.save(guard.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for name, drawn in guard.predict(x).predictions.items():
        assert torch.equal(drawn, other.predict(x).predictions[name])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda guard: pickle.loads(pickle.dumps(guard))])
def test_a_copy_has_heads_of_its_own(copied):
    guard = guarded([*both(), ag.SegmentationHead(2, 1.0, decoder=PICKLED, name="own")])
    data = annotated_batch()
    twin = copied(guard)
    assert torch.equal(step(twin, *data).loss, step(guard, *data).loss)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in guard.parameters()}
    with torch.no_grad():
        twin.heads["own"].decoder.conv.weight.zero_()
    assert not torch.equal(step(twin, *data).loss, step(guard, *data).loss)


PICKLED = Draw()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_decoders_are_made_in_the_models_type(dtype):
    guard = guarded(model=strided().to(dtype), heads=[*both(), ag.SegmentationHead(2, 0.1, decoder=Draw(), name="own")])
    assert {p.dtype for p in guard.parameters()} == {dtype}
    x, y, mask, segmentation = annotated_batch(dtype=dtype)
    out = step(guard, x, y, mask, segmentation)
    assert {drawn.dtype for drawn in out.predictions.values()} == {dtype}
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    assert {out.terms[name].dtype for name in guard.heads} == {exact}
    assert all(p.grad.isfinite().all() for p in guard.parameters())


def test_a_guard_cast_or_moved_later_takes_its_heads_along():
    guard = guarded().double()
    out = step(guard, *annotated_batch(dtype=torch.float64))
    assert {drawn.dtype for drawn in out.predictions.values()} == {torch.float64}


@pytest.mark.parametrize("kind", ["its parts differ in type", "it casts by itself"])
def test_a_network_whose_maps_are_of_another_type_than_its_first_parameter_carries_heads(kind):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.net = nn.BatchNorm2d(1), strided()
            if kind == "its parts differ in type":
                self.net.double()

        def forward(self, x):
            x = self.norm(x)
            if kind == "its parts differ in type":
                return self.net(x.double()).float()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.net(x).float()

    out = step(guarded(model=Mixed()), *annotated_batch())
    assert out.loss.isfinite()


# Choice of maps and decoders -----------------------------------------------------------------------------------------


def test_a_timm_network_needs_no_example_and_another_does():
    guard = ag.wrap(timm.create_model("convnext_atto", num_classes=2), heads=both())
    assert guard.heads["segmentation"].points == ("stages.0", "stages.1", "stages.2", "norm_pre")
    model, heads = strided(), both()
    with pytest.raises(ModelError, match=r"example_input, for instance the shape \(3, 224, 224\)"):
        ag.wrap(model, heads=heads)
    assert not is_hooked(model)
    ag.wrap(model, heads=heads, example_input=SHAPE)


def test_a_timm_network_that_refuses_its_own_configurations_images_needs_an_example():
    """The published weights' images have three channels."""
    model = timm.create_model("convnext_atto", num_classes=2, in_chans=1)
    with pytest.raises(ModelError, match="example_input"):
        ag.wrap(model, heads=both())
    out = ag.wrap(model, heads=both(), example_input=(1, 64, 64))(torch.rand(1, 1, 64, 64), torch.tensor([0]))
    assert out.predictions["reconstruction"].shape == (1, 1, 64, 64)


def test_named_layers_are_read_from_the_finest_to_the_coarsest():
    decoder = Draw()
    guard = guarded([ag.SegmentationHead(2, 1.0, decoder=decoder, layers=("5", "0"))])
    assert guard.heads["segmentation"].points == ("0", "5")
    assert guard.layers == {"segmentation": ("0", "5")}
    decoder.calls.clear()
    guard(torch.rand(3, *SHAPE), torch.zeros(3).long())
    assert decoder.calls == [[(3, 4, 6, 6), (3, 8, 3, 3)]]


def test_plain_draws_from_the_coarsest_map_alone():
    auto, plain = (
        guarded([ag.SegmentationHead(2, 1.0, decoder=kind)]).heads["segmentation"] for kind in ("auto", "plain")
    )
    assert (auto.points, plain.points) == (("2", "5"), ("5",))
    named = ag.SegmentationHead(2, 1.0, decoder="plain", layers=["0", "2"])
    assert guarded([named]).heads["segmentation"].points == ("2",)


def test_unet_and_auto_are_one_choice():
    guards = []
    for kind in ("auto", "unet"):
        torch.manual_seed(0)
        guards.append(guarded([ag.SegmentationHead(2, 1.0, decoder=kind)]))
    x, *_ = annotated_batch()
    assert torch.equal(*(guard.predict(x).predictions["segmentation"] for guard in guards))


def test_heads_of_one_kind_stand_side_by_side_under_their_own_names():
    heads = [ag.SegmentationHead(2, 0.5, name="lesion"), ag.SegmentationHead(1, 0.25, name="organ"), *both()]
    guard = guarded(heads)
    x, y, mask, segmentation = annotated_batch()
    out = step(guard, x, y, mask, segmentation)
    assert list(out.predictions) == ["lesion", "organ", "segmentation", "reconstruction"]
    assert out.predictions["organ"].shape == (4, 1, 12, 12)
    assert out.weights == {
        "criterion": 1.0, "lesion": 0.5, "organ": 0.25, "segmentation": 0.4, "reconstruction": 0.3,
    }  # fmt: skip
    torch.testing.assert_close(out.loss.detach(), sum(out.weights[name] * term for name, term in out.terms.items()))


def test_a_weight_can_be_changed_between_steps():
    head = ag.ReconstructionHead(0.0)
    guard = guarded([head])
    data = annotated_batch()
    assert torch.equal(step(guard, *data).loss, step(guard, *data).terms["criterion"])
    assert not any(p.grad.any() for p in head.parameters())
    head.weight = 2.0
    out = step(guard, *data)
    torch.testing.assert_close(out.loss.detach(), out.terms["criterion"] + 2 * out.terms["reconstruction"])


def test_a_head_of_ones_own_needs_two_methods():
    class Brightness(ag.Head):
        """Draws the image's brightness; keeps what it was given."""

        def out_channels(self, image_channels):
            return 1

        def loss(self, prediction, batch, corrupted):
            self.seen = prediction, batch, corrupted
            return (prediction - batch.x.mean(1, keepdim=True)).abs().flatten(1).mean(1)

    guard = guarded([Brightness(2.0, name="brightness")], model=strided(3), example_input=(3, 12, 12))
    x, y, mask, segmentation = annotated_batch(channels=3)
    out = step(guard, x, y, mask, segmentation)
    expected = (out.predictions["brightness"] - x.mean(1, keepdim=True)).abs().mean()
    torch.testing.assert_close(out.terms["brightness"], expected.detach())
    _, seen, corrupted = guard.heads["brightness"].seen
    assert seen.segmentation is segmentation and corrupted is None
    guard.heads["brightness"].loss = lambda prediction, batch, corrupted: prediction.mean()
    with pytest.raises(ShapeError, match=r"head 'brightness' of shape \(\); needed one value an image, \(4,\)"):
        guard(x, y)


def test_a_head_by_itself_says_that_it_needs_a_guard():
    with pytest.raises(ModelError, match=r"'segmentation' on its own.*wrap\(heads="):
        ag.SegmentationHead(2, 1.0)([torch.zeros(1, 8, 3, 3)], (12, 12))


# Decoders of one's own -----------------------------------------------------------------------------------------------


def test_a_decoder_of_ones_own_is_used_as_it_is_and_resized_to_the_image():
    decoder = Draw()
    guard = guarded([ag.SegmentationHead(2, 1.0, decoder=decoder)])
    assert guard.heads["segmentation"].decoder is decoder
    assert set(decoder.parameters()) == set(guard.heads.parameters())
    x, *_ = annotated_batch()
    drawn = guard.predict(x).predictions["segmentation"]
    by_hand = decoder([guard.model[:3](x), guard.model[:6](x)])
    assert by_hand.shape == (4, 2, 3, 3)
    torch.testing.assert_close(drawn, F.interpolate(by_hand, (12, 12), mode="bilinear", align_corners=False))


class Returns(nn.Module):
    """A decoder that gives something else, or raises."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, maps):
        return self.give(maps)


def fails(error):
    def give(maps):
        raise error

    return give


UNFIT = {
    "too many channels": (lambda maps: maps[-1][:, :3], r"gives \(2, 3, 3, 3\) for 2 images; needed \(2, 2, h, w\)"),
    "no spatial extent": (lambda maps: maps[-1][:, :2].mean((2, 3)), r"gives \(2, 2\) for 2 images"),
    "images mixed": (lambda maps: maps[-1][:1, :2], r"gives \(1, 2, 3, 3\) for 2 images"),
    "a list": (lambda maps: maps, r"gives list for 2 images"),
    "other channels": (Draw(7), r"refuses maps of \[\(2, 4, 6, 6\), \(2, 8, 3, 3\)\].*to have 7 channels"),
    "one tensor expected": (nn.Conv2d(8, 2, 1), r"refuses maps of \[\(2, 4, 6, 6\), \(2, 8, 3, 3\)\]"),
    "more maps expected": (lambda maps: maps[4], r"refuses maps of \[\(2, 4, 6, 6\), \(2, 8, 3, 3\)\]"),
    "an assertion": (fails(AssertionError("five maps")), r"refuses maps of .*five maps"),
    "a value error": (fails(ValueError("five maps")), r"refuses maps of .*five maps"),
    "two arguments": (lambda maps, size: maps[-1], r"refuses maps of"),
}


@pytest.mark.parametrize("mistake", UNFIT)
def test_a_decoder_that_does_not_fit_is_refused_by_wrap(mistake):
    give, words = UNFIT[mistake]
    decoder = give if isinstance(give, nn.Module) else Returns(give)
    model = strided()
    with pytest.raises(ShapeError, match=words):
        guarded([ag.SegmentationHead(2, 1.0, decoder=decoder)], model)
    assert not is_hooked(model)


@pytest.mark.parametrize("training", [True, False])
def test_trying_a_decoder_out_leaves_no_trace_in_it(training):
    model, decoder = strided(), Draw(8, 2, nn.BatchNorm2d(8), nn.Dropout(0.5)).train(training)
    decoder.first[1].train()
    modes = [module.training for module in decoder.modules()]
    before, random = copy.deepcopy(decoder.state_dict()), torch.get_rng_state()
    guarded([ag.SegmentationHead(2, 1.0, decoder=decoder)], model)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in decoder.modules()] == modes
    for key, value in decoder.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_decoder_that_works_in_place_changes_neither_the_penalties_nor_the_other_heads():
    x, y, mask, segmentation = annotated_batch()
    seen = []
    for inplace in (False, True):
        torch.manual_seed(0)
        heads = [
            ag.SegmentationHead(2, 1.0, layers="4", decoder=Draw(8, 2, nn.ReLU(inplace)), name=name)
            for name in ("first", "second")
        ]
        penalties = [ag.ActDiff(1.0, layers="4", corruption="zero")]
        out = guarded(heads, penalties=penalties)(x, y, mask=mask, segmentation=segmentation)
        seen.append(out.terms)
    assert seen[0] == seen[1]


# Sizes and channels --------------------------------------------------------------------------------------------------


def test_image_sizes_may_vary_between_batches():
    guard = guarded()
    for n, height, width in ((4, 12, 12), (2, 13, 12), (1, 13, 13), (1, 31, 17), (3, 5, 64), (2, 3, 3)):
        x, segmentation = torch.rand(n, 1, height, width), torch.zeros(n, height, width).long()
        out = guard(x, torch.zeros(n).long(), segmentation=segmentation)
        assert out.loss.isfinite()
        assert out.predictions["segmentation"].shape == (n, 2, height, width)
        assert out.predictions["reconstruction"].shape == x.shape


class AnyChannels(nn.Module):
    """Takes images of any number of channels."""

    def __init__(self):
        super().__init__()
        self.net = strided(norm=True)

    def forward(self, x):
        return self.net(x.mean(1, keepdim=True))


@pytest.mark.parametrize("call", ["step", "predict", "first prediction"])
def test_another_number_of_channels_is_refused_before_anything_runs(call):
    criterion = "none" if call == "first prediction" else None
    guard = guarded(model=AnyChannels(), example_input=(3, 12, 12), criterion=criterion)
    calls = {
        "step": lambda x: guard(x, torch.zeros(2).long()),
        "predict": guard.predict,
        "first prediction": guard,
    }
    x = torch.rand(2, 1, 12, 12)
    state, random = copy.deepcopy(guard.state_dict()), torch.get_rng_state()
    with pytest.raises(ShapeError, match=r"images of 1 channel\(s\).*made for 3; needed 3 channel"):
        calls[call](x)
    assert all(torch.equal(value, state[key]) for key, value in guard.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    calls[call](torch.rand(2, 3, 12, 12))


def test_the_model_alone_still_takes_what_it_takes():
    guard = guarded(model=AnyChannels(), example_input=(3, 12, 12))
    assert guard(torch.rand(2, 5, 12, 12)).shape == (2, 2)


def test_a_tuple_of_outputs_goes_with_heads():
    guard = guarded(model=PairOutput(), output=1, example_input=(3, 12, 12))
    x, y, mask, segmentation = annotated_batch(channels=3)
    assert step(guard, x, y, mask, segmentation).predictions["reconstruction"].shape == x.shape
    assert isinstance(guard(x), tuple)


# Predictions ---------------------------------------------------------------------------------------------------------


def test_only_the_decoders_that_are_asked_for_run():
    decoders = {name: Draw() for name in ("a", "b", "c")}
    guard = guarded([ag.SegmentationHead(2, 1.0, decoder=d, name=name) for name, d in decoders.items()])
    x, y, mask, segmentation = annotated_batch()

    def run(call):
        for decoder in decoders.values():
            decoder.calls.clear()
        call()
        return {name: len(decoder.calls) for name, decoder in decoders.items()}

    assert run(lambda: guard(x)) == {"a": 0, "b": 0, "c": 0}
    assert run(lambda: guard.predict(x, heads=["b"])) == {"a": 0, "b": 1, "c": 0}
    assert run(lambda: guard.predict(x, heads=("c", "a"))) == {"a": 1, "b": 0, "c": 1}
    assert run(lambda: guard.predict(x)) == {"a": 1, "b": 1, "c": 1}
    assert run(lambda: guard(x, y, mask=mask, segmentation=segmentation)) == {"a": 1, "b": 1, "c": 1}


def test_predict_refuses_unknown_heads_and_a_bare_string():
    guard = guarded()
    x, *_ = annotated_batch()
    with pytest.raises(RangeError, match=r"'segmentations'.*'segmentation'"):
        guard.predict(x, ["segmentations"])
    with pytest.raises(TypeMismatchError, match="list"):
        guard.predict(x, "segmentation")


def test_predictions_keep_their_graph_and_logits_are_the_models():
    guard = guarded(model=strided(norm=True).eval())
    x, *_ = annotated_batch()
    out = guard.predict(x)
    assert torch.equal(out.logits, guard.model(x))
    out.predictions["segmentation"].sum().backward()
    assert guard.model[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("gradient", [False, True])
def test_nothing_has_a_graph_where_none_is_wanted(context, gradient):
    penalties = [ag.GradMask(1.0)] if gradient else []
    guard = guarded(penalties=penalties).eval()
    data = annotated_batch()
    with context():
        step_out = guard(data[0], data[1], mask=data[2], segmentation=data[3])
        drawn = guard.predict(data[0]).predictions
    assert not step_out.loss.requires_grad
    assert not any(p.requires_grad for p in (*step_out.predictions.values(), *drawn.values()))
    expected = step(guard, *data)
    for name in guard.heads:
        torch.testing.assert_close(step_out.terms[name], expected.terms[name])
        torch.testing.assert_close(drawn[name], expected.predictions[name].detach())


def test_heads_made_under_inference_mode_can_be_trained():
    model = strided()
    with torch.inference_mode():
        guard = guarded(model=model)
    step(guard, *annotated_batch())
    assert all(p.grad.isfinite().all() for p in guard.parameters())


# The loss ------------------------------------------------------------------------------------------------------------


def by_hand(model, decoders, x, y, mask, segmentation, has_mask, has_segmentation):
    """Two passes with hooks of its own: the criterion, both heads, all four penalties, each a mean over the batch."""
    taken = []
    keep = lambda module, args, out: taken.append(out)  # noqa: E731
    handles = [model[i].register_forward_hook(keep) for i in (1, 2, 4, 5)]
    leaf = x.clone().requires_grad_()
    z = model(leaf)
    before1, map1, before2, map2 = taken
    taken.clear()
    corrupted = torch.where(mask.bool() | ~has_mask.view(-1, 1, 1, 1), x, 0)
    torch.func.functional_call(model, {name: b.clone() for name, b in model.named_buffers()}, (corrupted,))
    for handle in handles:
        handle.remove()
    n = len(x)
    annotated = lambda values: (values * has_mask).sum() / n  # noqa: E731

    drawn, redrawn = (F.interpolate(decoder([map1, map2]), (13, 11), mode="bilinear") for decoder in decoders)
    q, p = drawn.softmax(1), F.one_hot(segmentation, 2).movedim(3, 1).double()
    dice = 1 - (2 * (p * q).sum((2, 3)) + 1e-5) / ((p + q).sum((2, 3)) + 1e-5)
    entropy = F.cross_entropy(drawn, segmentation, reduction="none").mean((1, 2))
    terms = {"criterion": F.cross_entropy(z, y)}
    terms["segmentation"] = ((0.4 * entropy + 0.6 * dice.mean(1)) * has_segmentation).sum() / n
    terms["reconstruction"] = (redrawn - corrupted).square().mean((1, 2, 3)).mean()

    distances = [(a - b).square().mean((1, 2, 3)).sqrt() for a, b in ((before1, taken[0]), (before2, taken[2]))]
    terms["actdiff"] = annotated((distances[0] + distances[1]) / 2)
    rows = torch.arange(n)
    (g,) = torch.autograd.grad((z[rows, y] - z[rows, 1 - y]).abs().sum(), leaf, create_graph=True)
    terms["gradmask"] = annotated(((1 - mask) * g).square().sum((1, 2, 3)).sqrt())
    (g,) = torch.autograd.grad(z.log_softmax(1).sum(), leaf, create_graph=True)
    terms["rrr"] = annotated(((1 - mask) * g).square().sum((1, 2, 3)))
    (g,) = torch.autograd.grad(z[rows, y].sum(), map2, create_graph=True)
    heat = normalize_map(class_activation_map(map2, g, "gradcam").relu(), "max")
    terms["gradcamrrr"] = annotated(gradcam_rrr(heat, resize(mask, map2.shape[2:])))
    return terms


@pytest.mark.filterwarnings("ignore:.*is blind")
def test_heads_and_every_penalty_in_one_step_equal_two_passes_by_hand():
    """Loss, every term, every gradient and every buffer; the two kinds of annotation are on different rows."""
    model = strided(norm=True).double()
    twin = copy.deepcopy(model)
    heads = [ag.SegmentationHead(2, 0.4), ag.ReconstructionHead(0.3, target="masked")]
    penalties = [
        ag.ActDiff(5.0, corruption="zero", layers=("1", "4")), ag.GradMask(2.0), ag.RRR(3.0),
        ag.GradCAMRRR(1.5, layer="5"),
    ]  # fmt: skip
    guard = guarded(heads, model, penalties=penalties, criterion_weight=0.7, example_input=(1, 13, 11))
    decoders = nn.ModuleList(copy.deepcopy(head.decoder) for head in guard.heads.values())
    x, y = torch.rand(4, 1, 13, 11, dtype=torch.float64), torch.tensor([0, 1, 1, 0])
    mask, segmentation = torch.zeros_like(x), torch.randint(0, 2, (4, 13, 11))
    mask[:, :, 3:8, 2:7] = 1
    has_mask, has_segmentation = torch.tensor([True, True, False, True]), torch.tensor([False, True, True, True])

    terms = by_hand(twin, decoders, x, y, mask, segmentation, has_mask, has_segmentation)
    weights = {
        "criterion": 0.7, "segmentation": 0.4, "reconstruction": 0.3, "actdiff": 5.0, "gradmask": 2.0, "rrr": 3.0,
        "gradcamrrr": 1.5,
    }  # fmt: skip
    expected = sum(weights[name] * term for name, term in terms.items())
    expected.backward()
    annotated = {"mask": has_mask, "segmentation": has_segmentation}
    out = step(guard, x, y, mask, segmentation, annotated=annotated)
    assert out.weights == weights
    torch.testing.assert_close(out.loss, expected, rtol=1e-9, atol=1e-9)
    for name, term in terms.items():
        assert term.item() > 0
        torch.testing.assert_close(out.terms[name], term.detach(), rtol=1e-9, atol=1e-9, msg=name)
    for ours, theirs in ((model, twin), (guard.heads, decoders)):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-9, msg=name)
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=name)


def test_heads_move_batchnorm_by_the_one_main_pass():
    model = strided(norm=True)
    alone = copy.deepcopy(model)
    passes = []
    guard = guarded([ag.SegmentationHead(2, 1.0), ag.ReconstructionHead(1.0, target="masked")], model)
    model[0].register_forward_hook(lambda module, args, out: passes.append(len(out)))
    data = annotated_batch()
    step(guard, *data)
    alone(data[0])
    assert passes == [4]
    for (name, ours), theirs in zip(model.named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_rows_without_annotation_carry_no_loss_and_no_gradient_whatever_they_hold():
    x, y, mask, segmentation = annotated_batch()
    guard = guarded([ag.SegmentationHead(2, 1.0)], criterion_weight=0.0)
    alone = guard(x[PARTLY], y[PARTLY], segmentation=segmentation[PARTLY]).terms["segmentation"]
    mask[~PARTLY], segmentation[~PARTLY] = float("nan"), 77
    x.requires_grad_()
    out = step(guard, x, y, mask, segmentation, annotated=PARTLY)
    torch.testing.assert_close(out.terms["segmentation"], alone * 3 / 4)
    assert (x.grad[~PARTLY] == 0).all()
    assert x.grad[PARTLY].flatten(1).abs().sum(1).min() > 0
    assert all(p.grad.isfinite().all() for p in guard.parameters())


@pytest.mark.parametrize("over", ["sample", "batch"])
@pytest.mark.parametrize("reduction", ["batch", "annotated"])
@pytest.mark.parametrize("given", ["nothing", "nobody"])
def test_a_batch_without_any_annotated_row_gives_every_parameter_a_gradient_of_zero(over, reduction, given):
    """DistributedDataParallel waits for a gradient of each."""
    heads = [ag.SegmentationHead(2, 1.0, over=over), ag.SegmentationHead(3, 1.0, over=over, name="more")]
    guard = guarded(heads, strided(norm=True), criterion_weight=0.0, reduction=reduction)
    x, y, _, segmentation = annotated_batch()
    annotations = {} if given == "nothing" else {"segmentation": segmentation, "annotated": torch.zeros(4).bool()}
    out = guard(x, y, **annotations)
    out.loss.backward()
    assert out.terms["segmentation"] == out.terms["more"] == 0
    assert all((p.grad == 0).all() for p in guard.parameters())


def test_the_mean_is_over_the_batch_or_over_the_annotated_rows():
    x, y, _, segmentation = annotated_batch()
    model = strided()
    terms = {}
    for reduction in ("batch", "annotated"):
        torch.manual_seed(0)
        guard = guarded(model=model, reduction=reduction)
        terms[reduction] = guard(x, y, segmentation=segmentation, annotated=PARTLY).terms
        guard.unwrap()
    torch.testing.assert_close(terms["annotated"]["segmentation"], terms["batch"]["segmentation"] * 4 / 3)
    torch.testing.assert_close(terms["annotated"]["reconstruction"], terms["batch"]["reconstruction"])


def test_two_halves_accumulate_to_the_whole_batch():
    guard = guarded(penalties=[ag.ActDiff(10.0, corruption="zero")])
    x, y, mask, segmentation = annotated_batch(8)
    rows = {"mask": torch.arange(8) < 3, "segmentation": torch.arange(8) > 5}
    step(guard, x, y, mask, segmentation, annotated=rows)
    whole = gradients(guard)
    guard.zero_grad()
    for part in (slice(0, 4), slice(4, 8)):
        annotated = {kind: counts[part] for kind, counts in rows.items()}
        out = guard(x[part], y[part], mask=mask[part], segmentation=segmentation[part], annotated=annotated)
        (out.loss / 2).backward()
    for name, ours in gradients(guard).items():
        torch.testing.assert_close(ours, whole[name], rtol=1e-5, atol=1e-6, msg=name)


def test_a_frozen_network_still_trains_its_heads_alike():
    data = annotated_batch()
    seen = []
    for frozen in (False, True):
        torch.manual_seed(1)
        guard = guarded(both(layers=("2", "5")), penalties=[ag.ActDiff(1.0, corruption="zero")])
        guard.model.requires_grad_(not frozen)
        step(guard, *data)
        seen.append(gradients(guard.heads))
        assert all((p.grad is None) == frozen for p in guard.model.parameters())
    for name, gradient in seen[0].items():
        assert torch.equal(seen[1][name], gradient), name


def test_no_map_outlives_the_call():
    kept = []

    class Keep(Draw):
        def forward(self, maps):
            kept.extend(map(weakref.ref, maps))
            return super().forward(maps)

    guard = guarded([ag.SegmentationHead(2, 1.0, decoder=Keep())], penalties=[ag.ActDiff(1.0)])
    kept.clear()
    x, y, mask, segmentation = annotated_batch()
    gc.disable()  # no reference cycle may be needed to be broken first
    try:
        out = guard(x, y, mask=mask, segmentation=segmentation)
        out.loss.backward()
        del out
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()


# Without a criterion -------------------------------------------------------------------------------------------------


def test_without_a_criterion_the_guard_is_its_first_head():
    guard = guarded(criterion="none", penalties=[ag.ActDiff(2.0, corruption="zero")])
    x, y, mask, segmentation = annotated_batch()
    first = guard.predict(x, ["segmentation"]).predictions["segmentation"]
    assert torch.equal(guard(x), first)
    out = guard(x, None, mask=mask, segmentation=segmentation)
    assert list(out.terms) == list(out.weights) == ["segmentation", "reconstruction", "actdiff"]
    torch.testing.assert_close(
        out.loss.detach(),
        0.4 * out.terms["segmentation"] + 0.3 * out.terms["reconstruction"] + 2 * out.terms["actdiff"],
    )
    assert torch.equal(guard(x, y, segmentation=segmentation).terms["segmentation"], out.terms["segmentation"])
    assert guard(x, None).terms["segmentation"] == 0
    assert torch.equal(out.logits, guard.model(x))


def test_without_a_criterion_annotations_need_an_explicit_none():
    guard = guarded(criterion="none")
    x, _, _, segmentation = annotated_batch()
    with pytest.raises(TypeMismatchError, match=r"guard\(x, None, "):
        guard(x, segmentation=segmentation)


def test_without_a_criterion_the_classifier_gets_no_gradient():
    guard = guarded(criterion="none")
    x, _, mask, segmentation = annotated_batch()
    step(guard, x, None, mask, segmentation)
    assert guard.model[-1].weight.grad is None
    assert guard.model[0].weight.grad.abs().sum() > 0


# Precision, memory, layout -------------------------------------------------------------------------------------------


def test_under_bfloat16_autocast_predictions_are_bfloat16_and_losses_float32():
    guard = guarded(penalties=[ag.ActDiff(1.0, corruption="zero")])
    x, y, mask, segmentation = annotated_batch()
    full = guard(x, y, mask=mask, segmentation=segmentation)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = guard(x, y, mask=mask, segmentation=segmentation)
    out.loss.backward()
    for name, drawn in out.predictions.items():
        assert drawn.dtype == torch.bfloat16
        assert out.terms[name].dtype == torch.float32
        torch.testing.assert_close(out.terms[name], full.terms[name], rtol=2e-2, atol=0)
    assert all(p.grad.isfinite().all() for p in guard.parameters())
    # The loss of what was drawn, in float32: exactly that of the rounded prediction.
    redrawn = (out.predictions["reconstruction"].float() - x).square().mean()
    torch.testing.assert_close(out.terms["reconstruction"], redrawn.detach(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_atto"])
def test_checkpointing_model_and_decoders_changes_no_gradient(name):
    """The first two hand their blocks to the checkpoint without calling the stages that hold them."""
    model = timm.create_model(name, num_classes=2).double()
    guard = guarded(model=model, example_input=(3, 64, 64))
    data = annotated_batch(2, 3, 64, dtype=torch.float64)
    runs = {"model": 0, "heads": 0}
    for part in runs:
        for module in getattr(guard, part).modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda module, args, out, part=part: runs.update({part: runs[part] + 1}))

    def counted():
        runs.update(model=0, heads=0)
        return step(guard, *data), gradients(guard), dict(runs)

    expected, plain, once = counted()
    guard.set_grad_checkpointing()
    step(guard, *data)  # looks at the network anew
    out, again, twice = counted()
    assert twice["heads"] == 2 * once["heads"] - 2  # all but the last convolution of each
    assert once["model"] < twice["model"]
    torch.testing.assert_close(out.loss, expected.loss, rtol=1e-12, atol=0)
    for key, gradient in again.items():
        torch.testing.assert_close(gradient, plain[key], rtol=1e-9, atol=1e-12, msg=key)
    guard.set_grad_checkpointing(False)
    step(guard, *data)
    assert counted()[2] == once


class Residual(nn.Sequential):
    """Does more than its last module."""

    def forward(self, x):
        return x + super().forward(x)


class Repeating(nn.Module):
    """Halves three times by one module."""

    def __init__(self):
        super().__init__()
        self.stem, self.halve = nn.Conv2d(1, 4, 3, padding=1), nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(3):
            x = self.halve(x)
        return self.fc(x.mean((2, 3)))


def in_stages(*parts):
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


KINDS = {
    "stages": lambda: (in_stages(strided()[:3], strided()[3:6]), ()),
    "a residual sequence": lambda: (in_stages(strided()[:6], Residual(nn.Conv2d(8, 8, 1), nn.ReLU())), ()),
    "modules with names": lambda: (
        in_stages(nn.Sequential(OrderedDict(zip("abcdef", strided()[:6], strict=True)))),
        (),
    ),
    "a module called again": lambda: (Repeating(), ()),
    "what enters a module": lambda: (strided(), ("2", "4:input")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_switching_checkpointing_on_and_off_changes_nothing_that_is_drawn(kind):
    model, layers = KINDS[kind]()
    guard = guarded(both(layers=layers), model)
    x, *_ = annotated_batch()
    drawn = guard.predict(x).predictions
    for enable in (True, False):
        guard.set_grad_checkpointing(enable)
        for name, again in guard.predict(x).predictions.items():
            torch.testing.assert_close(again, drawn[name], rtol=0, atol=0)


def test_switching_checkpointing_does_not_forget_the_number_of_channels():
    guard = guarded(model=AnyChannels(), example_input=(3, 12, 12))
    guard.set_grad_checkpointing()
    with pytest.raises(ShapeError, match=r"images of 1 channel\(s\).*made for 3"):
        guard(torch.rand(2, 1, 12, 12), torch.zeros(2).long())


class CannotCheckpoint(nn.Sequential):
    """As timm's VGG."""

    def set_grad_checkpointing(self, enable=True):
        assert not enable, "gradient checkpointing not supported"


@pytest.mark.parametrize("kind", [nn.Sequential, CannotCheckpoint])
def test_decoders_can_be_checkpointed_where_the_model_cannot(kind):
    guard = guarded(model=kind(*strided()))
    guard.set_grad_checkpointing()
    assert all(head.decoder.checkpointing for head in guard.heads.values())


def test_channels_last_gives_the_same_numbers():
    guard = guarded(model=strided(3, norm=True), example_input=(3, 12, 12))
    x, y, mask, segmentation = annotated_batch(channels=3)
    expected = step(guard, x, y, mask, segmentation)
    plain = gradients(guard)
    guard = guard.to(memory_format=torch.channels_last)
    out = step(guard, x.contiguous(memory_format=torch.channels_last), y, mask, segmentation)
    torch.testing.assert_close(out.loss, expected.loss)
    for name, gradient in gradients(guard).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-6, msg=name)


def test_a_layer_that_a_later_one_overwrites_is_drawn_from_as_it_was():
    """The ReLU behind the convolution works in place."""
    drawn = []
    for inplace in (False, True):
        torch.manual_seed(0)
        guard = guarded(both(layers=("0", "3")), strided(inplace=inplace))
        drawn.append(guard.predict(annotated_batch()[0]).predictions["segmentation"])
    assert torch.equal(*drawn)


# wrap ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (lambda: ag.ReconstructionHead(1.0, layers="nowhere"), LayerError),
        (lambda: ag.ReconstructionHead(1.0, layers="8"), LayerError),
        (lambda: ag.ReconstructionHead(1.0, decoder=Draw(7)), ShapeError),
        (lambda: ag.ReconstructionHead(1.0, decoder="swin"), ModelError),
    ],
    ids=["unknown layer", "no map", "unfit decoder", "no swin"],
)
def test_a_wrap_that_fails_leaves_no_hook_and_the_heads_free(second, error):
    model, first, bad = strided(norm=True), ag.SegmentationHead(2, 1.0), second()
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(error):
        guarded([first, bad], model)
    assert not is_hooked(model)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert (first.decoder, first.points) == (bad.decoder, bad.points) == (None, ())
    assert list(first.parameters()) == []
    guard = guarded([first], model)
    assert step(guard, *annotated_batch()).loss.isfinite()


def test_one_head_in_two_guards_is_refused_and_the_first_keeps_it():
    head = ag.SegmentationHead(2, 1.0)
    guard, model = guarded([head]), strided()
    decoder = head.decoder
    with pytest.raises(ModelError, match="in a guard already"):
        guarded([head], model)
    assert not is_hooked(model)
    assert head.decoder is decoder
    assert step(guard, *annotated_batch()).loss.isfinite()


def test_an_unwrapped_guard_predicts_nothing_and_says_so():
    guard = guarded()
    guard.unwrap()
    x, *_ = annotated_batch()
    with pytest.raises(ModelError, match="wrap the model again"):
        guard.predict(x)
    assert guard(x).shape == (4, 2)


def test_a_head_that_is_added_later_is_attached_by_the_next_step():
    guard = guarded([ag.SegmentationHead(2, 1.0)])
    guard.heads["more"] = ag.SegmentationHead(2, 1.0, name="more")
    out = step(guard, *annotated_batch())
    assert out.predictions["more"].shape == (4, 2, 12, 12)


@pytest.mark.parametrize("name", ["", "a.b", None, 3, "items", "training", "keys", "type", "forward"])
def test_a_name_that_cannot_stand_in_a_state_dict_is_refused(name):
    with pytest.raises(ag.AttribGuardError, match=f"{name!r}"):
        guarded([ag.SegmentationHead(2, 1.0, name=name)])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ag.SegmentationHead(2, -1.0), RangeError, "weight -1.0"),
        (lambda: ag.SegmentationHead(2, "1"), TypeMismatchError, "'1'"),
        (lambda: ag.SegmentationHead(2, 1.0, decoder="deep"), RangeError, "'deep'.*'unet'"),
        (lambda: ag.SegmentationHead(2, 1.0, decoder=Draw), RangeError, "decoder=.*Draw"),
        (lambda: ag.SegmentationHead(2, 1.0, layers=[nn.ReLU()]), TypeMismatchError, "names of modules"),
        (lambda: ag.SegmentationHead(2, 1.0, layers=None), TypeMismatchError, "names of modules"),
    ],
)
def test_bad_arguments_are_refused_where_they_are_made(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize("heads", [lambda: both()[0], lambda: {"a": both()[0]}, lambda: iter(both()), lambda: None])
def test_heads_that_are_no_list_are_refused(heads):
    with pytest.raises(TypeMismatchError, match=r"heads=.*a list of Head objects"):
        ag.wrap(plain_cnn(), heads=heads(), example_input=SHAPE)


def test_heads_may_be_a_tuple():
    assert list(guarded(tuple(both())).heads) == ["segmentation", "reconstruction"]
