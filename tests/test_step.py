"""Inner gradients by form, shared or by plain autograd: the same numbers where they are said to be the same."""

import functools
import itertools
import warnings
import weakref

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

import attribguard as ag
from attribguard import step as step_module
from attribguard.corruption import Corruption
from attribguard.plan import check_compilable
from tests.networks import batch, plain_cnn

PENALTIES = {
    "actdiff": lambda: ag.ActDiff(2.0, corruption="zero"),
    "gradmask": lambda: ag.GradMask(0.5),
    "rrr": lambda: ag.RRR(3.0),
    "gradcamrrr": lambda: ag.GradCAMRRR(5.0, cam="hirescam", normalize="none", relu=False),
}
MIXES = [mix for size in (1, 2, 3, 4) for mix in itertools.combinations(PENALTIES, size)]


@pytest.fixture(autouse=True)
def _blindness_is_not_the_matter_here():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is blind")
        yield


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


@st.composite
def networks(draw):
    """A random network of one to three blocks on 2 channels, in float64, its number of outputs and its mode."""
    torch.manual_seed(draw(st.integers(0, 2**31 - 1)))
    pick = lambda *choices: draw(st.sampled_from(choices))  # noqa: E731
    layers, width = [], 2
    for _ in range(draw(st.integers(1, 3))):
        residual, out = draw(st.booleans()), 4
        conv = nn.Conv2d(
            width, out, pick(1, 3), stride=pick(1, 2), padding=1, groups=pick(1, 2), bias=draw(st.booleans())
        )
        norm = pick(nn.Identity, nn.BatchNorm2d, functools.partial(nn.BatchNorm2d, affine=False), nn.InstanceNorm2d)(
            out
        )
        if draw(st.booleans()) and getattr(norm, "weight", None) is not None:
            nn.init.zeros_(norm.weight)
        layers += [conv, norm, pick(nn.ReLU(inplace=True), nn.GELU(), nn.Softplus())]
        if residual:
            layers += [Residual(nn.Conv2d(out, out, 3, padding=1), nn.BatchNorm2d(out), nn.Tanh())]
        width = out
    head = pick([nn.AdaptiveAvgPool2d(1), nn.Flatten()], [nn.AdaptiveMaxPool2d(2), nn.Flatten()])
    outputs = draw(st.integers(1, 3))
    hidden = [nn.Linear(width * (4 if isinstance(head[0], nn.AdaptiveMaxPool2d) else 1), 5), nn.SiLU()]
    last = nn.Linear(5, outputs)
    return nn.Sequential(*layers, *head, *hidden, last).double().train(draw(st.booleans())), outputs


def guarded_step(model, mix, gradients, *, x, y, mask, **options):
    """Loss, terms and gradients of one step, from the same random and running state each time."""
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(3)
    model.zero_grad()
    guard = ag.wrap(model, penalties=[PENALTIES[name]() for name in mix], gradients=gradients)
    try:
        out = guard(x, y, mask=mask, **options)
        out.loss.backward()
        given = [p.grad.clone() for p in model.parameters()]
        return [out.loss.detach(), *out.terms.values(), *given, *(b.clone() for b in model.buffers())]
    finally:
        guard.unwrap()
        model.load_state_dict(state)


def assert_same(ours, theirs, tolerance):
    for mine, other in zip(ours, theirs, strict=True):
        largest = max(1.0, other.abs().max().item()) if other.numel() else 1.0
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=tolerance * largest)


def images(outputs, n=4, dtype=torch.float64):
    x, y, mask = batch(n=n, channels=2, size=9, classes=max(outputs, 2), dtype=dtype)
    return {"x": x, "y": y if outputs > 1 else y.to(dtype), "mask": mask}


@given(networks(), st.sampled_from(MIXES), st.booleans())
def test_every_mix_of_penalties_gives_plain_autograds_numbers_on_random_networks(drawn, mix, partly):
    model, outputs = drawn
    inputs = images(outputs)
    if partly:
        inputs["annotated"] = torch.tensor([True, False, False, True])
    results = [guarded_step(model, mix, gradients, **inputs) for gradients in ("exact", "autograd")]
    assert_same(*results, 1e-9)


@pytest.mark.parametrize("zero", [False, True])
def test_a_resnet_in_single_precision_gives_plain_autograds_numbers(zero):
    model = timm.create_model("resnet18", num_classes=2, zero_init_last=zero)
    x, y, mask = batch(n=8, channels=3, size=40)
    results = [guarded_step(model, PENALTIES, form, x=x, y=y, mask=mask) for form in ("exact", "autograd")]
    for mine, other in zip(*results, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5 * max(0.1, other.abs().max().item()))


def by_hand(model, x, y, mask):
    """GradMask and RRR from one gradient of the sum of margins, written out."""
    leaf = x.clone().requires_grad_()
    z = model(leaf)
    d = z[:, 1] - z[:, 0]
    (g,) = torch.autograd.grad(d.sum(), leaf, create_graph=True)
    squares = ((1 - mask) * g).square().sum((1, 2, 3))
    terms = [(d.sign().square() * squares).sqrt().mean(), ((d / 2).tanh().square() * squares).mean()]
    (F.cross_entropy(z, y) + 0.5 * terms[0] + 3.0 * terms[1]).backward()
    return [*(t.detach() for t in terms), *(p.grad.clone() for p in model.parameters())]


def test_shared_gradients_under_batchnorm_are_the_definition_by_hand_and_another_than_autograds():
    model = plain_cnn(channels=2, norm=True).double()
    inputs = images(2)
    shared, exact = (guarded_step(model, ("gradmask", "rrr"), form, **inputs) for form in ("shared", "exact"))
    model.zero_grad()
    expected = by_hand(model, **inputs)
    assert_same(shared[2 : 2 + len(expected)], expected, 1e-9)
    assert (shared[3] - exact[3]).abs() > 1e-6 * exact[3]


@given(st.integers(0, 2**31 - 1), st.booleans())
def test_shared_gradients_change_nothing_where_no_image_changes_another(seed, dropout):
    torch.manual_seed(seed)
    model = plain_cnn(channels=2, norm=not dropout, dropout=0.3 if dropout else 0.0).double().train(dropout)
    inputs = images(2)
    results = [guarded_step(model, ("gradmask", "rrr"), form, **inputs) for form in ("shared", "exact", "autograd")]
    assert_same(results[0], results[2], 1e-9)
    assert_same(results[1], results[2], 1e-9)


@pytest.mark.parametrize(
    ("outputs", "norm", "gradients", "expected"),
    [
        (2, False, "exact", 1),
        (1, False, "exact", 1),
        (3, False, "exact", 2),
        (3, False, "shared", 2),
        (2, True, "exact", 2),
        (2, True, "shared", 1),
        (2, False, "autograd", 2),
    ],
)
def test_one_inner_backward_pass_where_one_is_enough(outputs, norm, gradients, expected, monkeypatch):
    calls, original = [], step_module.scaled_gradient
    monkeypatch.setattr(step_module, "scaled_gradient", lambda *a: calls.append(1) or original(*a))
    guarded_step(plain_cnn(2, outputs, norm=norm).double(), ("gradmask", "rrr"), gradients, **images(outputs))
    assert len(calls) == expected


class Centred(nn.Module):
    """Couples the images without BatchNorm."""

    def forward(self, x):
        return x - x.mean(0)


def test_a_batch_coupled_by_any_means_is_noticed_and_dropout_is_no_coupling():
    x = torch.randn(3, 1, 12, 12)
    for model, coupled in (
        (plain_cnn(), False),
        (plain_cnn(dropout=0.5), False),
        (plain_cnn(norm=True), True),
        (plain_cnn(norm=True).eval(), False),
        (nn.Sequential(Centred(), plain_cnn()), True),
    ):
        network = ag.wrap(model)._network
        assert network.couples_samples(x, ()) is coupled
        network._coupled.clear()
        assert network.couples_samples(x[:1], ()) is coupled


@pytest.mark.parametrize("norm", [False, True])
def test_the_callers_own_images_get_the_gradient_that_autograd_gives_them(norm):
    model, read = plain_cnn(channels=2, norm=norm).double(), []
    for gradients in ("exact", "autograd"):
        inputs = images(2)
        torch.manual_seed(5)
        inputs["x"] = torch.randn_like(inputs["x"]).requires_grad_()
        guarded_step(model, PENALTIES, gradients, **inputs)
        read.append(inputs["x"].grad)
    assert read[0].abs().sum() > 0
    torch.testing.assert_close(*read, rtol=1e-9, atol=1e-9)


def test_the_callers_own_images_get_the_gradient_of_the_corrupted_pass_too():
    """By hand: two convolutions, what lies outside set to 0."""
    model, inputs = plain_cnn(channels=2).double(), images(2)
    x, mask = inputs["x"].requires_grad_(), inputs["mask"]
    first, second = model[0], lambda t: model[2](model[1](model[0](t)))
    z = model(x)
    distances = [(f(x * mask) - f(x)).square().flatten(1).mean(1).sqrt() for f in (first, second)]
    loss = F.cross_entropy(z, inputs["y"]) + 2.0 * torch.stack(distances).mean()
    (expected,) = torch.autograd.grad(loss, x)
    guarded_step(model, ("actdiff",), "exact", **inputs)
    torch.testing.assert_close(x.grad, expected, rtol=1e-9, atol=1e-9)


class OwnGradient(ag.Penalty):
    """Differentiates by itself, with and without a graph."""

    needs_input_gradient = True

    def forward(self, trace):
        score = trace.logits.square().sum()
        (held,) = torch.autograd.grad(score, trace.batch.x, retain_graph=True)
        (image,) = torch.autograd.grad(score, trace.batch.x, create_graph=True)
        return (held * image).flatten(1).sum(1)


def test_a_penalty_that_differentiates_by_itself_gets_autograds_numbers(monkeypatch):
    monkeypatch.setitem(PENALTIES, "own", lambda: OwnGradient(0.1))
    model = plain_cnn(channels=2, norm=True).double()
    inputs = images(2)
    results = [guarded_step(model, ("own", "gradmask"), form, **inputs) for form in ("exact", "autograd")]
    assert results[0][2] > 0
    assert_same(*results, 1e-9)


def test_two_accumulated_batches_add_up_to_one():
    model = plain_cnn(channels=2).double()
    whole = images(2)
    guard = ag.wrap(model, penalties=[PENALTIES[name]() for name in PENALTIES])
    guard(whole["x"], whole["y"], mask=whole["mask"]).loss.backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for rows in (slice(0, 2), slice(2, 4)):
        (guard(whole["x"][rows], whole["y"][rows], mask=whole["mask"][rows]).loss / 2).backward()
    assert_same([p.grad for p in model.parameters()], expected, 1e-9)


@pytest.mark.parametrize("norm", [False, True])
def test_under_autocast_both_ways_give_the_same_to_half_precision(norm):
    model, inputs = plain_cnn(channels=2, norm=norm), images(2, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = [guarded_step(model, ("gradmask", "rrr"), form, **inputs) for form in ("exact", "autograd")]
    assert_same(*results, 3e-2)


class Checkpointed(nn.Module):
    """Its convolutions and BatchNorm run a second time, in the backward pass."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net[-1](checkpoint(self.net[:-1], x, use_reentrant=False))


def test_checkpointed_blocks_give_the_numbers_of_plain_ones():
    net, inputs = plain_cnn(channels=2, norm=True).double(), images(2)
    results = [guarded_step(model, ("gradmask",), "exact", **inputs) for model in (Checkpointed(net), net)]
    parameters = len([*net.parameters()])
    assert_same(*(result[: 3 + parameters] for result in results), 1e-9)


def test_plain_autograd_and_compiling_a_map_penalty_exclude_each_other():
    guard = ag.wrap(plain_cnn(channels=2), penalties=[ag.GradCAMRRR(1.0)], example_input=(2, 9, 9))
    check_compilable(guard._terms(), guard._plan)
    guard.gradients = "autograd"
    with pytest.raises(ag.errors.ModelError, match="gradients='autograd'"):
        check_compilable(guard._terms(), guard._plan)


def test_another_word_for_gradients_is_refused_and_leaves_nothing_on_the_model():
    model = plain_cnn()
    with pytest.raises(ag.errors.RangeError, match="gradients"):
        ag.wrap(model, gradients="fast")
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Whole(ag.Penalty):
    """Reads whole features of the corrupted pass, and keeps them."""

    def __init__(self, name="whole", corruption="zero"):
        super().__init__(1.0, layers="auto", name=name)
        self.corruption = Corruption(corruption)
        self.given = []

    def forward(self, trace):
        self.seen = {name: tensor.detach() for name, tensor in trace.corrupted(self.corruption).features.raw.items()}
        self.main = {name: tensor.detach() for name, tensor in trace.features.raw.items()}
        return sum(tensor.flatten(1).sum(1) for tensor in trace.features.raw.values())


class Compares(Whole):
    """Reads differences, and keeps what it was given."""

    def compare(self, clean, corrupted):
        self.given.append((clean, corrupted))
        return (clean - corrupted).square().flatten(1).sum(1)

    def forward(self, trace):
        self.rows, found = trace.compared()
        values = trace.logits.new_zeros(len(trace.batch.x))
        values[self.rows] = sum(found.values())
        self.names = list(found)
        return values


@pytest.mark.parametrize(("norm", "expected"), [(False, 2), (True, 4)])
def test_two_passes_are_compared_by_the_rows_that_can_differ(norm, expected):
    """With BatchNorm in train mode a corrupted image changes the others too."""
    whole, compares = Whole(), Compares("compares")
    x, y, mask = batch()
    guard = ag.wrap(plain_cnn(norm=norm), penalties=[whole, compares])
    guard(x, y, mask=mask, annotated=torch.tensor([1, 0, 0, 1]).bool())
    assert list(whole.seen) == compares.names
    assert len(compares.given) == len(whole.seen)
    for (clean, corrupted), features in zip(compares.given, whole.seen.values(), strict=True):
        assert len(clean) == len(corrupted) == expected
        assert torch.equal(corrupted, features[compares.rows])
    for (clean, _), features in zip(compares.given, whole.main.values(), strict=True):
        assert torch.equal(clean, features[compares.rows])


def test_equal_corruptions_share_one_pass_and_others_do_not():
    model, passes = plain_cnn(), []
    model[0].register_forward_pre_hook(lambda module, args: passes.append(args[0]))
    x, y, mask = batch()
    penalties = [Whole(), Compares("a"), Compares("b"), Compares("c", corruption="mean")]
    guard = ag.wrap(model, penalties=penalties, example_input=x)
    passes.clear()
    guard(x, y, mask=mask)
    assert len(passes) == 3


def test_what_was_compared_is_not_kept():
    """Neither side, from one layer to the next: of a network without a graph, which would hold them."""
    held = []

    class Watches(Compares):
        def compare(self, clean, corrupted):
            held.append(sum(side() is not None for side in self.given))
            self.given += [weakref.ref(clean), weakref.ref(corrupted)]
            return clean.flatten(1).sum(1) - corrupted.flatten(1).sum(1)

    x, y, mask = batch()
    model = plain_cnn(norm=True)
    model.append(nn.ReLU()).append(nn.Linear(2, 2))
    with torch.no_grad():
        ag.wrap(model, penalties=[Watches()])(x, y, mask=mask)
    assert len(held) > 1
    assert set(held) == {0}


def test_autograd_leaves_the_corrupted_pass_before_it_differentiates_inner_gradients_again():
    """So that the two graphs are not held together; whatever the order in which penalties are given."""
    order = []

    class Inner(ag.GradMask):
        def forward(self, trace):
            trace.input_gradient("contrast").register_hook(lambda g: order.append("inner"))
            return super().forward(trace)

    class Compared(ag.ActDiff):
        def compare(self, clean, corrupted):
            corrupted.register_hook(lambda g: order.append("corrupted"))
            return super().compare(clean, corrupted)

    x, y, mask = batch()
    for penalties in ([Inner(1.0), Compared(1.0)], [Compared(1.0), Inner(1.0)]):
        order.clear()
        ag.wrap(plain_cnn(), penalties=penalties)(x, y, mask=mask).loss.backward()
        assert order[-1] == "inner"
        assert set(order[:-1]) == {"corrupted"}


def test_a_penalty_may_stop_comparing_between_two_steps():
    class Either(Compares):
        def forward(self, trace):
            return super().forward(trace) if self.compare else Whole.forward(self, trace)

    x, y, mask = batch()
    guard = ag.wrap(plain_cnn(), penalties=[either := Either()])
    guard(x, y, mask=mask)
    either.compare = None
    guard(x, y, mask=mask)
    assert list(either.seen) == either.names


def test_reading_whole_features_leaves_those_that_another_compares_later():
    whole = Whole()
    whole.layers = ("2",)
    x, y, mask = batch()
    guard = ag.wrap(plain_cnn(norm=True), penalties=[whole, ag.ActDiff(1.0, corruption="zero")])
    both = guard(x, y, mask=mask).terms["actdiff"]
    alone = ag.wrap(guard.unwrap(), penalties=[ag.ActDiff(1.0, corruption="zero")])(x, y, mask=mask)
    assert torch.equal(both, alone.terms["actdiff"])


class LooksBack(Compares):
    def forward(self, trace):
        values = super().forward(trace)
        return values + trace.features["2"].flatten(1).sum(1)


def test_features_that_were_compared_are_gone_unless_another_reads_them():
    x, y, mask = batch()
    looks, whole = LooksBack("looks"), Whole()
    looks.layers = whole.layers = ("2",)
    with pytest.raises(ag.errors.ModelError, match=r"before trace\.compared"):
        ag.wrap(plain_cnn(), penalties=[looks])(x, y, mask=mask)
    ag.wrap(plain_cnn(), penalties=[looks, whole])(x, y, mask=mask)


class ReadsBoth(Compares):
    def forward(self, trace):
        return trace.corrupted(self.corruption).features["1"].flatten(1).sum(1)


class ComparesWithoutAWay(Whole):
    def forward(self, trace):
        return sum(trace.compared().values.values())


@pytest.mark.parametrize("penalty", [ReadsBoth, ComparesWithoutAWay])
def test_reading_another_way_than_declared_is_refused(penalty):
    x, y, mask = batch()
    with pytest.raises(ag.errors.ModelError, match="compare"):
        ag.wrap(plain_cnn(), penalties=[penalty()])(x, y, mask=mask)


@pytest.mark.parametrize("norm", ["rms", "l2", "rows"])
def test_without_an_annotated_row_actdiff_is_0_with_a_graph_and_gradients_of_0(norm):
    model = plain_cnn()
    x, y, mask = batch()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0, norm=norm)], criterion_weight=0.0)
    out = guard(x, y, mask=mask, annotated=torch.zeros(4, dtype=torch.bool))
    out.loss.backward()
    assert out.terms["actdiff"] == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_features_are_let_go_of_once_no_penalty_reads_them_any_more():
    kept = []

    class First(ag.Penalty):
        def forward(self, trace):
            kept.append(weakref.ref(next(iter(trace.features.raw.values()))))
            return trace.logits.new_zeros(len(trace.batch.x))

    class Second(First):
        def forward(self, trace):
            kept.append(kept[0]() is None)
            return trace.logits.new_zeros(len(trace.batch.x))

    x, y, mask = batch()
    with torch.no_grad():  # where a graph would hold them
        ag.wrap(plain_cnn(), penalties=[First(1.0, layers="0"), Second(1.0, name="second")])(x, y, mask=mask)
    assert kept[1] is True


def test_a_map_of_a_frozen_backbone_is_differentiated_through_what_stands_behind_it():
    """Where no closed form applies, the layer itself has to carry a gradient that nothing before it asks for."""
    model = plain_cnn()
    model[-1] = nn.Sequential(nn.Linear(32, 8), nn.Tanh(), nn.Linear(8, 2))
    x, y, mask = batch()
    gradients = []
    for frozen in (False, True):
        model[:-1].requires_grad_(not frozen)
        guard = ag.wrap(model, penalties=[ag.GradCAMRRR(1.0, layer="3")])
        out = guard(x, y, mask=mask)
        assert out.terms["gradcamrrr"] > 0
        out.loss.backward()
        gradients.append([p.grad.clone() for p in model[-1].parameters()])
        model.zero_grad()
        guard.unwrap()
    for free, fixed in zip(*gradients, strict=True):
        torch.testing.assert_close(fixed, free)
