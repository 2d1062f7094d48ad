"""Bad input: one clear error each, and nothing changed. One table for guarded calls, one for `wrap`."""

import copy
import warnings
from collections import OrderedDict
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

import attribguard as ag
from attribguard.errors import AttribGuardError, LayerError, ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.validation import check_batch
from tests.networks import plain_cnn

N, SIZE = 4, 12
NAN, INF = float("nan"), float("inf")


class Pair(nn.Module):
    """Gives its features and its logits."""

    def __init__(self, as_dict=False):
        super().__init__()
        self.net, self.as_dict = network(), as_dict

    def forward(self, x):
        features, logits = x.mean((2, 3)), self.net(x)
        return {"features": features, "logits": logits} if self.as_dict else (features, logits)


class Idle(nn.Module):
    """Has a layer that never runs and one that gives two tensors."""

    def __init__(self):
        super().__init__()
        self.net, self.unused, self.twins = network(), nn.Linear(2, 2), Twins()

    def forward(self, x):
        return self.net(x) + 0 * sum(self.twins(x)).mean()


class Twins(nn.Module):
    def forward(self, x):
        return x, x


class BareFunction(nn.Module):
    """Its activation works on a sum that no module gives."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(torch.relu(self.a(x) + self.b(x)).mean((2, 3)))


class Noise(nn.Module):
    """Draws, and counts its calls in a buffer, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls.add_(1)
        return x + torch.randn_like(x)


def network(**settings):
    """Everything that could move: BatchNorm, dropout, draws and counts in eval mode too, modules in different modes."""
    net = plain_cnn(norm=True, dropout=0.25, **settings).append(Noise())
    net[1].eval()
    return net


def linear_net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(200, 2))


def map_net():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3))


def images(*shape, dtype=torch.float32):
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape).to(dtype)


def mask_with(value, dtype=torch.float32):
    mask = torch.ones(N, 1, SIZE, SIZE, dtype=dtype)
    mask[2, 0, 3, 4] = value
    return mask


GOOD = {"x": images(N, 1, SIZE, SIZE), "target": torch.tensor([0, 1, 1, 0]), "mask": mask_with(0.0)}


@dataclass
class Bad:
    """One mistake: what is passed instead, the error, and words that its message must have."""

    mistake: str
    error: type
    words: list
    passed: dict = field(default_factory=dict)
    make: object = network
    wrapped: dict = field(default_factory=dict)

    def __str__(self):
        return self.mistake.replace(" ", "-")


SHAPES = ["(4, 1, 12, 12)", "(4, 12, 12)"]  # what a mask may have

IN_A_CALL = [
    Bad("mask of another batch size", ShapeError, ["mask", "(3, 12, 12)", *SHAPES], {"mask": torch.ones(3, 12, 12)}),
    Bad("mask of one row for all", ShapeError, ["mask", "(1, 1, 12, 12)"], {"mask": torch.ones(1, 1, 12, 12)}),
    Bad("mask of another size", ShapeError, ["mask", "(4, 1, 6, 6)", *SHAPES], {"mask": torch.ones(4, 1, 6, 6)}),
    Bad("mask of three channels", ShapeError, ["(4, 3, 12, 12)", *SHAPES], {"mask": torch.ones(4, 3, 12, 12)}),
    Bad("mask without rows", ShapeError, ["(12, 12)", *SHAPES], {"mask": torch.ones(12, 12)}),
    Bad("mask above 1", RangeError, ["to 1.5", "[0, 1]"], {"mask": mask_with(1.5)}),
    Bad("mask a little above 1", RangeError, ["to 1.00001", "[0, 1]"], {"mask": mask_with(1.00001)}),
    Bad("mask below 0", RangeError, ["from -0.25", "[0, 1]"], {"mask": mask_with(-0.25)}),
    Bad("mask of 0 and 255", RangeError, ["to 255", "255"], {"mask": mask_with(255, torch.uint8)}),
    Bad("mask of -1 and 1", RangeError, ["from -1", "[0, 1]"], {"mask": mask_with(-1, torch.int64)}),
    Bad("mask with NaN", RangeError, ["nan", "NaN", "annotated"], {"mask": mask_with(NAN)}),
    Bad("mask with infinity", RangeError, ["inf", "[0, 1]"], {"mask": mask_with(INF)}),
    Bad(
        "mask with NaN on one of the annotated rows",
        RangeError,
        ["nan"],
        {"mask": mask_with(NAN), "annotated": torch.tensor([False, False, True, False])},
    ),
    Bad("mask of complex numbers", TypeMismatchError, ["complex64"], {"mask": mask_with(0).to(torch.complex64)}),
    Bad("mask that is a list", TypeMismatchError, ["mask as list", "a tensor"], {"mask": [[0]]}),
    Bad("mask on another device", TypeMismatchError, ["meta", "cpu"], {"mask": mask_with(0).to("meta")}),
    Bad("annotated of integers", TypeMismatchError, ["int64", "bool"], {"annotated": torch.ones(N, dtype=torch.int64)}),
    Bad("annotated of floats", TypeMismatchError, ["float32", "bool"], {"annotated": torch.ones(N)}),
    Bad("annotated that is a list", TypeMismatchError, ["annotated as list"], {"annotated": [True] * N}),
    Bad("annotated too short", ShapeError, ["annotated", "(3,)", "(4,)"], {"annotated": torch.ones(3).bool()}),
    Bad("annotated with an axis more", ShapeError, ["(4, 1)", "(4,)"], {"annotated": torch.ones(N, 1).bool()}),
    Bad("annotated mapping too short", ShapeError, ["(5,)", "(4,)"], {"annotated": {"mask": torch.ones(5).bool()}}),
    Bad("annotated mapping of floats", TypeMismatchError, ["float32", "bool"], {"annotated": {"mask": torch.ones(N)}}),
    Bad(
        "annotated mapping with an unknown key",
        RangeError,
        ["masks", "'mask'", "'segmentation'"],
        {"annotated": {"masks": torch.ones(N).bool()}},
    ),
    Bad("annotated without a mask", ShapeError, ["mask"], {"mask": None, "annotated": torch.ones(N).bool()}),
    Bad(
        "annotated for a segmentation that is not there",
        ShapeError,
        ["segmentation"],
        {"annotated": {"segmentation": torch.ones(N).bool()}},
    ),
    Bad("segmentation of floats", TypeMismatchError, ["float32"], {"segmentation": torch.ones(N, SIZE, SIZE)}),
    Bad(
        "segmentation of another size",
        ShapeError,
        ["segmentation", "(4, 6, 6)", "(4, 12, 12)"],
        {"segmentation": torch.ones(N, 6, 6).long()},
    ),
    Bad("target above the classes", RangeError, ["to 2", "0 to 1"], {"target": torch.tensor([0, 2, 1, 0])}),
    Bad("target below 0", RangeError, ["from -1", "0 to 1"], {"target": torch.tensor([0, -1, 1, 0])}),
    Bad("target of another batch size", ShapeError, ["(3,)", "(4,)"], {"target": torch.tensor([0, 1, 1])}),
    Bad("target that is a list", TypeMismatchError, ["list", "a tensor"], {"target": [0, 1, 1, 0]}),
    Bad(
        "target of floats for two outputs",
        TypeMismatchError,
        ["float32", "2 outputs", "integer classes", "criterion="],
        {"target": torch.tensor([0.0, 1.0, 1.0, 0.0])},
    ),
    Bad(
        "target that is mixed or multi-label",
        TypeMismatchError,
        ["(4, 2)", "float32", "criterion="],
        {"target": torch.rand(N, 2)},
    ),
    Bad("target one-hot", TypeMismatchError, ["(4, 2)", "criterion="], {"target": torch.ones(N, 2, dtype=torch.int64)}),
    Bad(
        "label above 1 for one output",
        RangeError,
        ["to 2", "0 to 1", "1 output"],
        {"target": torch.tensor([0, 2, 1, 0])},
        lambda: network(outputs=1),
    ),
    Bad(
        "label NaN for one output",
        RangeError,
        ["nan", "0 to 1"],
        {"target": torch.tensor([0, NAN, 1, 0])},
        lambda: network(outputs=1),
    ),
    Bad(
        "labels (N, 2) for one output",
        ShapeError,
        ["(4, 2)", "(4,) or (4, 1)"],
        {"target": torch.zeros(N, 2)},
        lambda: network(outputs=1),
    ),
    Bad("logits that are a map", ShapeError, ["(N, 2, 8, 8)", "(N, K)", "criterion="], make=map_net),
    Bad("5-D images", ShapeError, ["(4, 1, 3, 12, 12)", "(N, C, H, W)"], {"x": images(N, 1, 3, SIZE, SIZE)}),
    Bad("3-D images", ShapeError, ["(1, 12, 12)", "(N, C, H, W)"], {"x": images(1, SIZE, SIZE)}),
    Bad("an empty batch", ShapeError, ["(0, 1, 12, 12)", "at least one image"], {"x": images(0, 1, SIZE, SIZE)}),
    Bad("images of bytes", TypeMismatchError, ["uint8", "floating"], {"x": GOOD["x"].to(torch.uint8)}),
    Bad("images that are a list", TypeMismatchError, ["list", "floating"], {"x": [0.0]}),
    Bad("annotations without a target", TypeMismatchError, ["target"], {"target": None}),
]


def everything(model):
    """What a bad call could have changed."""
    hooks = [
        list(getattr(module, kind).items())
        for module in model.modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    ]
    return {
        "state": [(name, value.clone()) for name, value in model.state_dict().items()],
        "buffers": [id(buffer) for buffer in model.buffers()],
        "modes": [module.training for module in model.modules()],
        "gradients": [parameter.grad for parameter in model.parameters()],
        "random state": torch.get_rng_state(),
        "hooks": hooks,
    }


def assert_unchanged(model, before):
    for what, value in everything(model).items():
        assert len(value) == len(before[what]), what
        for now, then in zip(value, before[what], strict=True):
            if what == "state":
                assert now[0] == then[0]
                assert torch.equal(now[1], then[1]), now[0]
            else:
                assert now == then, what


def assert_says(error, case):
    assert type(error) is case.error
    assert isinstance(error, AttribGuardError)
    assert error.got
    assert error.needed
    assert error.fix
    for word in case.words:
        assert word in str(error), str(error)


def guard_of(case, model, ready):
    wrapped = {"penalties": [ag.ActDiff(weight=1.0, dilate=1)], **case.wrapped}
    return ag.wrap(model, **wrapped, example_input=(1, SIZE, SIZE) if ready else None)


@pytest.mark.parametrize("ready", [True, False], ids=["later-call", "first-call"])
@pytest.mark.parametrize("case", IN_A_CALL, ids=str)
def test_a_bad_call_raises_one_clear_error_and_changes_nothing(case, ready):
    model = case.make()
    guard = guard_of(case, model, ready)
    passed = {**GOOD, **case.passed}
    kept = copy.deepcopy(passed)
    before = everything(model)
    with pytest.raises(AttribGuardError) as caught:
        guard(passed.pop("x"), passed.pop("target"), **passed)
    assert_says(caught.value, case)
    assert_unchanged(model, before)
    for name, value in passed.items():
        if isinstance(value, torch.Tensor) and value.device.type == "cpu":
            torch.testing.assert_close(value, kept[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("ready", [True, False], ids=["later-call", "first-call"])
@pytest.mark.parametrize("case", [case for case in IN_A_CALL if case.make is network], ids=str)
def test_the_call_after_a_bad_one_is_as_if_there_had_been_none(case, ready):
    model = network()
    twin = copy.deepcopy(model)
    guard, untroubled = guard_of(case, model, ready), guard_of(case, twin, ready)
    passed = {**GOOD, **case.passed}
    with pytest.raises(AttribGuardError):
        guard(passed.pop("x"), passed.pop("target"), **passed)
    losses = []
    for each in (guard, untroubled):
        torch.manual_seed(1)
        out = each(**GOOD)
        out.loss.backward()
        losses.append(out.loss.item())
    assert losses[0] == losses[1]
    for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


# fmt: off
UNUSABLE = [
    Bad("a tuple without output", ModelError, ["a tuple of 2", "output="], make=Pair),
    Bad("a dict without output", ModelError, ["dict", "'logits'", "output="], make=lambda: Pair(as_dict=True)),
    Bad("an output key that is not there", ModelError, ["'logit'", "'logits'"], make=lambda: Pair(as_dict=True),
        wrapped={"output": "logit"}),
    Bad("an output index that is not there", ModelError, ["output=2", "a tuple of 2"], make=Pair,
        wrapped={"output": 2}),
    Bad("an output that picks no tensor", ModelError, ["a str", "output="], make=Pair,
        wrapped={"output": lambda out: "logits"}),
    Bad("a layer that never ran", LayerError, ["'unused'", "never ran", "'net"], make=Idle,
        wrapped={"penalties": [ag.ActDiff(1.0, layers="unused")]}),
    Bad("a call that never came", LayerError, ["'net.0#1'", "never ran"], make=Idle,
        wrapped={"penalties": [ag.ActDiff(1.0, layers="net.0#1")]}),
    Bad("a layer that gives two tensors", LayerError, ["'twins'", "no single tensor"], make=Idle,
        wrapped={"penalties": [ag.ActDiff(1.0, layers="twins")]}),
    Bad("no activations for auto", LayerError, ["auto", "without activations", "ReLU"], make=linear_net),
    Bad("activations that no module feeds", LayerError, ["relu in 'the model itself'", "name the layers"],
        make=BareFunction),
]
# fmt: on


@pytest.mark.parametrize("case", UNUSABLE, ids=str)
def test_a_network_that_cannot_be_guarded_is_refused_by_wrap_and_left_as_it_was(case):
    model = case.make()
    before = everything(model)
    with pytest.raises(AttribGuardError) as caught:
        guard_of(case, model, ready=True)
    assert_says(caught.value, case)
    assert_unchanged(model, before)
    ag.wrap(model)  # not taken for a wrapped one


@pytest.mark.parametrize("case", UNUSABLE, ids=str)
def test_a_network_that_cannot_be_guarded_is_refused_by_the_first_call_and_left_as_it_was(case):
    model = case.make()
    bare = everything(model)
    guard = guard_of(case, model, ready=False)
    before = everything(model)
    with pytest.raises(AttribGuardError) as caught:
        guard(**GOOD)
    assert_says(caught.value, case)
    assert_unchanged(model, before)
    assert_unchanged(guard.unwrap(), bare)


class Last(nn.Module):
    """A decoder of one's own that reads the coarsest map."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, maps):
        return self.net(maps[-1])


def labels_with(value, dtype=torch.int64):
    segmentation = torch.zeros(N, SIZE, SIZE, dtype=dtype)
    segmentation[2, 3, 4] = value
    return segmentation


def heads(**settings):
    """New ones, for a head belongs to one guard."""
    return [ag.SegmentationHead(3, 0.4), ag.ReconstructionHead(0.3, **settings)]


def redraw(model, **settings):
    ag.wrap(model, heads=[ag.ReconstructionHead(1.0, **settings)], example_input=EXAMPLE)


def built(make, *arguments):
    """A module, made without moving the random state."""
    with torch.random.fork_rng(devices=[]):
        return make(*arguments)


EXAMPLE = (1, SIZE, SIZE)
HEADED = {"heads": heads}
BCE = {"heads": lambda: heads(loss="bce")}
UNCLASSIFIED = {"heads": heads, "criterion": "none"}

# fmt: off
WITH_HEADS = [
    Bad("a class above the heads", RangeError, ["to 3", "0 to 2", "ignore_index"], {"segmentation": labels_with(3)},
        wrapped=HEADED),
    Bad("a class below 0", RangeError, ["from -1", "0 to 2"], {"segmentation": labels_with(-1)}, wrapped=HEADED),
    Bad("a class of 255 as bytes", RangeError, ["255", "0 to 2"], {"segmentation": labels_with(255, torch.uint8)},
        wrapped=HEADED),
    Bad("a segmentation of another size", ShapeError, ["(4, 6, 6)", "(4, 12, 12)"],
        {"segmentation": labels_with(0)[:, ::2, ::2]}, wrapped=HEADED),
    Bad("a segmentation with a channel axis", ShapeError, ["(4, 1, 12, 12)", "(4, 12, 12)"],
        {"segmentation": labels_with(0)[:, None]}, wrapped=HEADED),
    Bad("a segmentation of floats", TypeMismatchError, ["float32", ".long()"],
        {"segmentation": labels_with(0, torch.float32)}, wrapped=HEADED),
    Bad("a segmentation of flags", TypeMismatchError, ["bool", ".long()"],
        {"segmentation": labels_with(0, torch.bool)}, wrapped=HEADED),
    Bad("images of another number of channels", ShapeError, ["3 channel(s)", "made for 1"],
        {"x": images(N, 3, SIZE, SIZE)}, wrapped=HEADED),
    Bad("images below 0 for bce", RangeError, ["from -1", "[0, 1]", "loss='bce'"], {"x": images(N, 1, SIZE, SIZE)},
        wrapped=BCE),
    Bad("images with NaN for bce", RangeError, ["nan", "[0, 1]"], {"x": images(N, 1, SIZE, SIZE) * NAN}, wrapped=BCE),
    Bad("annotations without a target where there is no criterion", TypeMismatchError, ["annotations", "None"],
        {"target": ...}, wrapped=UNCLASSIFIED),
    Bad("annotated for a segmentation that is not given", ShapeError, ["segmentation"],
        {"target": None, "annotated": {"segmentation": torch.ones(N).bool()}}, wrapped=UNCLASSIFIED),
]
# fmt: on


@pytest.mark.parametrize("case", WITH_HEADS, ids=str)
def test_a_bad_call_of_a_guard_with_heads_raises_one_clear_error_and_changes_nothing(case):
    options = {**case.wrapped, "heads": case.wrapped["heads"]()}
    guard = ag.wrap(network(), penalties=[ag.ActDiff(1.0)], example_input=(1, SIZE, SIZE), **options)
    before = everything(guard)
    passed = {**GOOD, **case.passed}
    if passed["target"] is ...:
        del passed["target"]
    with pytest.raises(AttribGuardError) as caught:
        guard(**passed)
    assert_says(caught.value, case)
    assert_unchanged(guard, before)


@dataclass
class BadWrap:
    """One mistake in `wrap`."""

    mistake: str
    error: type
    words: list
    act: object

    def __str__(self):
        return self.mistake.replace(" ", "-")


def wrapping(**arguments):
    return lambda model: ag.wrap(model, **arguments)


def named(model):
    return nn.Sequential(OrderedDict(conv1=model))


def scripted(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        traced = torch.jit.trace(nn.ReLU(), torch.ones(1))
    ag.wrap(nn.Sequential(model, traced))


def compiled_in_place(model):
    model = copy.deepcopy(model)
    model.compile(backend="eager")
    ag.wrap(model)


# fmt: off
IN_WRAP = [
    BadWrap("penalties that are classes", TypeMismatchError, ["ActDiff", "ActDiff(weight=10.0)"],
            wrapping(penalties=[ag.ActDiff])),
    BadWrap("penalties that are one class", TypeMismatchError, ["ActDiff"], wrapping(penalties=ag.ActDiff)),
    BadWrap("one penalty without a list", TypeMismatchError, ["ActDiff", "a list"],
            wrapping(penalties=ag.ActDiff(1.0))),
    BadWrap("penalties that are None", TypeMismatchError, ["None", "a list"], wrapping(penalties=None)),
    BadWrap("two penalties of one name", RangeError, ["'actdiff'", "name="],
            wrapping(penalties=[ag.ActDiff(1.0), ag.ActDiff(2.0, norm="l2")])),
    BadWrap("a penalty named as the criterion", RangeError, ["'criterion'", "name="],
            wrapping(penalties=[ag.ActDiff(1.0, name="criterion")])),
    BadWrap("an unknown layer", LayerError, ["'conv2'", "nearest", "'conv1'"],
            lambda model: ag.wrap(named(model), penalties=[ag.ActDiff(1.0, layers="conv2")])),
    BadWrap("a pattern that matches no layer", LayerError, ["'conv2.*'", "nearest", "'conv1."],
            lambda model: ag.wrap(named(model), penalties=[ag.ActDiff(1.0, layers=("conv1.0", "conv2.*"))])),
    BadWrap("a compiled model", ModelError, ["compiled", "torch.compile(wrap(model"],
            lambda model: ag.wrap(torch.compile(model))),
    BadWrap("a model with a compiled part", ModelError, ["compiled"],
            lambda model: ag.wrap(nn.Sequential(torch.compile(model)))),
    BadWrap("a model compiled in place", ModelError, ["compiled"], compiled_in_place),
    BadWrap("a scripted model", ModelError, ["scripted"], scripted),
    BadWrap("a model with lazy modules", ModelError, ["lazy"],
            lambda model: ag.wrap(nn.Sequential(model, nn.LazyLinear(2)))),
    BadWrap("a distributed model", ModelError, ["DataParallel", "wrap"], lambda model: ag.wrap(nn.DataParallel(model))),
    BadWrap("a function instead of a model", TypeMismatchError, ["function", "Module"], lambda model: ag.wrap(len)),
    BadWrap("a class instead of a model", TypeMismatchError, ["type", "Module"], lambda model: ag.wrap(nn.ReLU)),
    BadWrap("a negative weight", RangeError, ["weight -1", "0 or more"], lambda model: ag.ActDiff(-1.0)),
    BadWrap("a NaN weight", RangeError, ["weight nan", "finite"], lambda model: ag.ActDiff(NAN)),
    BadWrap("an infinite weight", RangeError, ["weight inf", "finite"], lambda model: ag.ActDiff(weight=INF)),
    BadWrap("a weight that is text", TypeMismatchError, ["'10'", "a number"], lambda model: ag.ActDiff("10")),
    BadWrap("a weight that is a flag", TypeMismatchError, ["True", "a number"], lambda model: ag.ActDiff(True)),
    BadWrap("a weight made negative later", RangeError, ["weight -2", "0 or more"],
            lambda model: setattr(ag.ActDiff(1.0), "weight", -2)),
    BadWrap("a negative criterion weight", RangeError, ["criterion_weight -1"], wrapping(criterion_weight=-1.0)),
    BadWrap("a NaN criterion weight", RangeError, ["criterion_weight nan"], wrapping(criterion_weight=NAN)),
    BadWrap("a criterion that is a class", TypeMismatchError, ["CrossEntropyLoss", "Criterion()"],
            wrapping(criterion=nn.CrossEntropyLoss)),
    BadWrap("a criterion that is text", TypeMismatchError, ["'bce'", "callable"], wrapping(criterion="bce")),
    BadWrap("an unknown reduction", RangeError, ["'mean'", "'batch' or 'annotated'"], wrapping(reduction="mean")),
    BadWrap("an unknown validate", RangeError, ["'always'", "'auto'"], wrapping(validate="always")),
    BadWrap("heads that are none", TypeMismatchError, ["heads"], wrapping(heads=[nn.ReLU()])),
    BadWrap("heads that are classes", TypeMismatchError, ["SegmentationHead", "a list of Head"],
            wrapping(heads=[ag.SegmentationHead])),
    BadWrap("heads that are None", TypeMismatchError, ["heads=None", "a list of Head"], wrapping(heads=None)),
    BadWrap("two heads of one name", RangeError, ["'segmentation'", "name="],
            wrapping(heads=[*heads(), *heads()], example_input=EXAMPLE)),
    BadWrap("a head named as a penalty", RangeError, ["'actdiff'", "name="],
            wrapping(heads=[ag.ReconstructionHead(1.0, name="actdiff")], penalties=[ag.ActDiff(1.0)])),
    BadWrap("a head named as the criterion", RangeError, ["'criterion'", "name="],
            wrapping(heads=[ag.ReconstructionHead(1.0, name="criterion")])),
    BadWrap("a head whose name has a dot", TypeMismatchError, ["'a.b'", "dots"],
            lambda model: ag.ReconstructionHead(1.0, name="a.b")),
    BadWrap("a head whose name a list of modules has already", TypeMismatchError, ["'items'"],
            lambda model: redraw(model, name="items")),
    BadWrap("heads without an example", ModelError, ["heads", "example_input", "(3, 224, 224)"],
            lambda model: ag.wrap(model, heads=heads())),
    BadWrap("a head on an unknown layer", LayerError, ["'conv2'", "nearest", "'conv1'"],
            lambda model: redraw(named(model), layers="conv2")),
    BadWrap("a head on a layer without spatial extent", LayerError, ["without spatial extent", "'9'", "pooling"],
            lambda model: redraw(model, layers="9")),
    BadWrap("a head on a layer that never runs", LayerError, ["'unused'", "never ran"],
            lambda model: redraw(built(Idle), layers="unused")),
    BadWrap("a head on a network without a map", LayerError, ["'reconstruction'", "spatial extent", "layers="],
            lambda model: redraw(nn.Sequential(nn.Flatten(), built(nn.Linear, SIZE * SIZE, 2)))),
    BadWrap("a Swin decoder on another network", ModelError, ["Swin"], lambda model: redraw(model, decoder="swin")),
    BadWrap("an unknown decoder", RangeError, ["'deeplab'", "'unet'"], lambda model: heads(decoder="deeplab")),
    BadWrap("a decoder that takes other channels", ShapeError, ["refuses maps", "(2, 8, 12, 12)"],
            lambda model: redraw(model, decoder=Last(built(nn.Conv2d, 5, 1, 1)))),
    BadWrap("a decoder that takes a tensor", ShapeError, ["refuses maps", "(2, 8, 12, 12)", "list"],
            lambda model: redraw(model, decoder=built(nn.Conv2d, 8, 1, 1))),
    BadWrap("a decoder of other outputs", ShapeError, ["(2, 4, 2, 2)", "(2, 1, h, w)"],
            lambda model: redraw(model, decoder=Last(built(nn.Conv2d, 8, 4, 1)))),
    BadWrap("no class", RangeError, ["num_classes=0"], lambda model: ag.SegmentationHead(0, 1.0)),
    BadWrap("a negative weight of a head", RangeError, ["weight -1", "0 or more"],
            lambda model: ag.ReconstructionHead(-1.0)),
    BadWrap("an unknown reconstruction loss", RangeError, ["'l1'", "'mse' or 'bce'"], lambda model: heads(loss="l1")),
    BadWrap("a corruption of the input itself", RangeError, ["target='input'", "target='masked'"],
            lambda model: heads(corruption=ag.Corruption("zero"))),
    BadWrap("a corruption by name for a head", TypeMismatchError, ["'zero'", "Corruption"],
            lambda model: heads(target="masked", corruption="zero")),
    BadWrap("no criterion and no head", RangeError, ["criterion='none'", "heads="], wrapping(criterion="none")),
    BadWrap("no criterion and a penalty on its gradient", RangeError, ["criterion='none'", "gradients"],
            lambda model: ag.wrap(model, heads=heads(), criterion="none", penalties=[ag.GradMask(1.0)])),
    BadWrap("no criterion and a penalty on a layer's gradient", RangeError, ["criterion='none'", "gradients"],
            lambda model: ag.wrap(model, heads=heads(), criterion="none", penalties=[ag.GradCAMRRR(1.0)])),
    BadWrap("a weighting that is none", TypeMismatchError, ["weighting"], wrapping(weighting=object())),
    BadWrap("a 5-D example", ShapeError, ["(1, 1, 3, 12, 12)", "(N, C, H, W)"],
            wrapping(example_input=images(1, 1, 3, SIZE, SIZE))),
    BadWrap("an example without rows", ShapeError, ["(1, 12, 12)", "(N, C, H, W)"],
            wrapping(example_input=images(1, SIZE, SIZE))),
    BadWrap("an example of bytes", ShapeError, ["uint8", "floating"],
            wrapping(example_input=torch.zeros(1, 1, SIZE, SIZE, dtype=torch.uint8))),
    BadWrap("a 4-D shape as example", ShapeError, ["(1, 3, 12, 12)", "(C, H, W)"],
            wrapping(example_input=(1, 3, SIZE, SIZE))),
    BadWrap("a shape with a side of 0", ShapeError, ["(1, 0, 12)", "(C, H, W)"], wrapping(example_input=(1, 0, SIZE))),
    BadWrap("an unknown norm", RangeError, ["'L2'", "'l2'"], lambda model: ag.ActDiff(1.0, norm="L2")),
    BadWrap("an unknown corruption", RangeError, ["'noise'", "'shuffle'"],
            lambda model: ag.ActDiff(1.0, corruption="noise")),
    BadWrap("a negative dilation", RangeError, ["dilate=-1"], lambda model: ag.ActDiff(1.0, dilate=-1)),
    BadWrap("no layers", LayerError, ["layers"], lambda model: ag.ActDiff(1.0, layers=())),
    BadWrap("layers that are modules", TypeMismatchError, ["layers", "names"],
            lambda model: ag.ActDiff(1.0, layers=[model[0]])),
]
# fmt: on


@pytest.mark.parametrize("case", IN_WRAP, ids=str)
def test_a_bad_wrap_raises_one_clear_error_and_leaves_the_model_as_it_was(case):
    model = network()
    before = everything(model)
    with pytest.raises(AttribGuardError) as caught:
        case.act(model)
    assert_says(caught.value, case)
    assert_unchanged(model, before)


@pytest.mark.parametrize("ready", [True, False], ids=["before-the-first-call", "after-a-dry-run"])
@pytest.mark.parametrize(
    "of",
    [
        lambda guard: guard,
        lambda guard: guard.model,
        lambda guard: nn.Sequential(guard),
        lambda guard: nn.Sequential(guard.model),
        lambda guard: torch.compile(guard),
    ],
    ids=["guard", "its-model", "guard-inside", "its-model-inside", "compiled-guard"],
)
def test_a_wrapped_model_is_refused_until_it_is_unwrapped(of, ready):
    model = network()
    bare = everything(model)
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, SIZE, SIZE) if ready else None)
    before = everything(model)
    with pytest.raises(ModelError, match=r"wrapped already.*unwrap\(\)"):
        ag.wrap(of(guard))
    assert_unchanged(model, before)
    assert_unchanged(guard.unwrap(), bare)
    ag.wrap(model)


def test_a_guarded_call_after_unwrap_is_refused():
    model = network()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, SIZE, SIZE))
    guard.unwrap()
    before = everything(model)
    with pytest.raises(ModelError, match="wrap the model again"):
        guard(**GOOD)
    assert_unchanged(model, before)


def test_validate_false_skips_the_values_and_keeps_the_shapes():
    guard = ag.wrap(network(), penalties=[ag.ActDiff(1.0)], validate=False)
    guard(**{**GOOD, "mask": mask_with(1.5)})
    with pytest.raises(ShapeError):
        guard(**{**GOOD, "mask": torch.ones(3, SIZE, SIZE)})


def test_values_are_checked_on_the_cpu_in_every_step():
    guard = ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0)])
    for _ in range(30):
        guard(**GOOD)
    with pytest.raises(RangeError):
        guard(**{**GOOD, "mask": mask_with(1.5)})
    with pytest.raises(RangeError):
        guard(**{**GOOD, "target": GOOD["target"] + 1})


def loss_of(**passed):
    torch.manual_seed(0)
    guard = ag.wrap(network(), penalties=[ag.ActDiff(1.0)], example_input=(1, SIZE, SIZE))
    torch.manual_seed(1)
    return guard(**{**GOOD, **passed}).loss


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("channel_axis", [True, False])
def test_masks_of_0_and_1_of_every_type_and_of_both_shapes_are_accepted(dtype, channel_axis):
    mask = GOOD["mask"].to(dtype)
    assert torch.equal(loss_of(mask=mask if channel_axis else mask[:, 0]), loss_of())


@pytest.mark.parametrize("rounding", [-5e-7, 1 + 5e-7])
def test_a_mask_that_interpolation_left_a_rounding_error_outside_is_accepted_as_0_or_1(rounding):
    mask = mask_with(rounding)
    batch = check_batch(GOOD["x"], GOOD["target"], mask, None, None, values=True)
    assert torch.equal(batch.mask, mask_with(round(rounding)))
    assert torch.equal(loss_of(mask=mask), loss_of(mask=mask_with(round(rounding))))


@pytest.mark.parametrize("nonsense", [NAN, INF, -3.0, 255.0])
def test_a_row_that_is_not_annotated_may_hold_nonsense(nonsense):
    rows = torch.tensor([True, True, False, True])
    assert torch.equal(loss_of(mask=mask_with(nonsense), annotated=rows), loss_of(annotated=rows))
    assert torch.equal(loss_of(mask=mask_with(nonsense), annotated={"mask": rows}), loss_of(annotated=rows))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.bool], ids=str)
def test_class_indices_of_every_integer_type_are_accepted(dtype):
    assert torch.equal(loss_of(target=GOOD["target"].to(dtype)), loss_of())


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(N,), (N, 1)], ids=str)
def test_labels_for_one_output_are_accepted_in_both_shapes_and_every_type(dtype, shape):
    guard = ag.wrap(plain_cnn(outputs=1))
    out = guard(GOOD["x"], GOOD["target"].to(dtype).view(shape))
    expected = nn.functional.binary_cross_entropy_with_logits(out.logits, GOOD["target"].float()[:, None])
    torch.testing.assert_close(out.loss, expected)


def test_the_default_criterion_is_the_cross_entropy_of_the_models_logits():
    guard = ag.wrap(plain_cnn())
    out = guard(GOOD["x"], GOOD["target"])
    torch.testing.assert_close(out.loss, nn.functional.cross_entropy(guard.model(GOOD["x"]), GOOD["target"]))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_an_explicit_criterion_takes_the_targets_that_the_default_refuses(reduction):
    def criterion(logits, target):
        losses = nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
        return losses.mean() if reduction == "mean" else losses

    target = torch.tensor([[0.3, 0.7], [1.0, 1.0], [0.0, 0.0], [0.5, 0.0]])
    guard = ag.wrap(plain_cnn(), criterion=criterion)
    out = guard(GOOD["x"], target)
    torch.testing.assert_close(out.loss, nn.functional.binary_cross_entropy_with_logits(out.logits, target))


def test_a_criterion_that_returns_neither_a_scalar_nor_one_value_an_image_is_refused():
    guard = ag.wrap(plain_cnn(), criterion=lambda logits, target: logits)
    with pytest.raises(ShapeError, match=r"\(4, 2\).*scalar or \(N,\)"):
        guard(GOOD["x"], GOOD["target"])
