"""Penalties on gradients and maps, through the guard: the numbers by hand, the cost, the modes, the refusals."""

import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import attribguard as ag
from attribguard import step as step_module
from attribguard.functional import class_activation_map, gradcam_rrr, normalize_map
from attribguard.masks import resize
from tests.networks import NETWORKS, batch, plain_cnn

PENALTIES = {
    "gradmask": lambda **o: ag.GradMask(1.0, name="it", **o),
    "nonhealthy": lambda **o: ag.GradMask(1.0, score="nonhealthy", name="it", **o),
    "rrr": lambda **o: ag.RRR(1.0, name="it", **o),
    "rrr target": lambda **o: ag.RRR(1.0, score="target", name="it", **o),
    "gradcam": lambda **o: ag.GradCAMRRR(1.0, name="it", **o),
    "hirescam projection": lambda **o: ag.GradCAMRRR(1.0, cam="hirescam", score="projection", name="it", **o),
    "integrated gradients": lambda **o: ag.AttributionPenalty(1.0, ag.IntegratedGradients(2), name="it", **o),
    "expected gradients": lambda **o: ag.AttributionPenalty(1.0, ag.ExpectedGradients(2), name="it", **o),
    "gradient times input": lambda **o: ag.AttributionPenalty(1.0, ag.GradientTimesInput(), name="it", **o),
}


@pytest.fixture(params=PENALTIES)
def penalty(request):
    return PENALTIES[request.param]


@pytest.fixture(autouse=True)
def _blindness_is_not_the_matter_here():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is blind")
        yield


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["gradmask", "rrr", "gradcam", "hirescam projection"])
def test_every_network_gets_finite_gradients(network, name):
    model, shape = NETWORKS[network]()
    guard = ag.wrap(model, penalties=[PENALTIES[name]()], example_input=shape)
    x, mask = torch.rand(2, *shape), torch.zeros(2, *shape[1:])
    mask[:, 4:10, 4:10] = 1
    out = guard(x, torch.tensor([0, 1]), mask=mask)
    out.loss.backward()
    assert out.loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def scores_by_hand(name, z, y):
    if name == "gradmask":
        own = z[torch.arange(len(z)), y]
        rest = z.clone()
        rest[torch.arange(len(z)), y] = -torch.inf
        return (own - rest.max(1).values).abs()
    if name == "nonhealthy":
        return z[:, 1:].abs().sum(1)
    log_p = z - z.exp().sum(1, keepdim=True).log()
    return log_p.sum(1) if name == "rrr" else log_p[torch.arange(len(z)), y]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["gradmask", "nonhealthy", "rrr", "rrr target"])
def test_input_gradient_penalties_equal_autograd_by_hand(name, classes):
    model = plain_cnn(outputs=classes, norm=True).double()
    x, y, mask = batch(classes=classes, dtype=torch.float64)
    leaf = x.clone().requires_grad_()
    z = model(leaf)
    (g,) = torch.autograd.grad(scores_by_hand(name, z, y).sum(), leaf, create_graph=True)
    squares = ((1 - mask) * g).square().sum((1, 2, 3))
    term = (squares.sqrt() if name in ("gradmask", "nonhealthy") else squares).mean()
    (F.cross_entropy(z, y) + term).backward()
    expected = gradients(model)
    model.zero_grad()
    out = ag.wrap(model, penalties=[PENALTIES[name]()])(x, y, mask=mask)
    out.loss.backward()
    torch.testing.assert_close(out.terms["it"], term.detach(), rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def pooled(pool=True, dropout=0.0, outputs=3):
    """A 3 by 3 map at "0", pooled or flattened, and one linear layer."""
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if pool else [nn.Flatten()]
    drop = [nn.Dropout(dropout)] if dropout else []
    features = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True))
    return nn.Sequential(features, *tail, *drop, nn.Linear(4 if pool else 36, outputs))


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("cam", ["gradcam", "hirescam"])
@pytest.mark.parametrize("normalize", ["max", "minmax", "none"])
@pytest.mark.parametrize("score", ["target", "predicted"])
@pytest.mark.parametrize("closed", [True, False])
def test_map_penalties_equal_autograd_by_hand(pool, cam, normalize, score, closed, monkeypatch):
    model = pooled(pool).double()
    x, y, mask = batch(size=6, classes=3, dtype=torch.float64)
    features = model[0](x)
    z = model[1:](features)
    chosen = y if score == "target" else z.argmax(1)
    (g,) = torch.autograd.grad(z.gather(1, chosen[:, None]).sum(), features, create_graph=True)
    heat = normalize_map(class_activation_map(features, g, cam).relu(), normalize)
    term = gradcam_rrr(heat, resize(mask, (3, 3))).mean()
    (F.cross_entropy(z, y) + 2 * term).backward()
    expected = gradients(model)
    model.zero_grad()
    guard = ag.wrap(model, penalties=[ag.GradCAMRRR(2.0, cam=cam, normalize=normalize, score=score)])
    guard(x, y, mask=mask)
    tails = guard._plan.tails
    assert tails.find(guard.layers["gradcamrrr"][0], x).form == ("pooled" if pool else "flat")
    if not closed:
        monkeypatch.setattr(tails, "find", lambda point, x: None)
    out = guard(x, y, mask=mask)
    out.loss.backward()
    torch.testing.assert_close(out.terms["gradcamrrr"], term.detach(), rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(gradients(model), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_constant_weights_give_the_classifier_no_gradient_and_the_default_does():
    for constant, silent in ((True, True), (False, False)):
        model = pooled()
        penalty = ag.GradCAMRRR(1.0, normalize="none", relu=False, constant_weights=constant)
        guard = ag.wrap(model, penalties=[penalty], criterion_weight=0.0)
        x, y, mask = batch(size=6, classes=3)
        guard(x, y, mask=mask).loss.backward()
        assert bool((model[-1].weight.grad == 0).all()) is silent
        assert model[0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("build", [pooled, lambda: timm.create_model("resnet18", num_classes=3, in_chans=1)])
def test_with_a_linear_classifier_no_inner_backward_pass_runs(build, monkeypatch):
    guard = ag.wrap(build(), penalties=[ag.GradCAMRRR(1.0)], example_input=(1, 33, 33))
    x, y, mask = batch(size=33, classes=3)

    def refuse(*args, **kwargs):
        raise AssertionError("an inner backward pass ran")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    out = guard(x, y, mask=mask)
    out.loss.backward()
    assert out.loss.isfinite()


def test_the_inner_graph_reaches_down_to_the_layer_only():
    """With a classifier of two layers: the gradient is taken, and the backbone is not in it."""
    model = pooled()
    model.insert(len(model) - 1, nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    ran = []

    class Spy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            ran.append(1)
            return g

    class Watched(nn.Module):
        def forward(self, x):
            return Spy.apply(x)

    model[0].insert(1, Watched())
    guard = ag.wrap(model, penalties=[ag.GradCAMRRR(1.0)], example_input=(1, 6, 6))
    x, y, mask = batch(size=6, classes=3)
    ran.clear()
    out = guard(x, y, mask=mask)
    assert ran == []
    out.loss.backward()
    assert ran == [1]


def test_dropout_before_the_classifier_rules_the_closed_form_out_in_train_mode_alone():
    model = pooled(dropout=0.5)
    guard = ag.wrap(model, penalties=[ag.GradCAMRRR(1.0)])
    x, y, mask = batch(size=6, classes=3)
    guard(x, y, mask=mask)
    layer = guard.layers["gradcamrrr"][0]
    assert guard._plan.tails.find(layer, x) is None
    model.eval()
    assert guard._plan.tails.find(layer, x).form == "pooled"


def test_dropout_too_rare_to_show_rules_the_closed_form_out_too():
    guard = ag.wrap(pooled(dropout=1e-9), penalties=[ag.GradCAMRRR(1.0)])
    x, y, mask = batch(size=6, classes=3)
    guard(x, y, mask=mask)
    assert guard._plan.tails.find(guard.layers["gradcamrrr"][0], x) is None


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("resnet18", 64, "global_pool.pool:input"),
        ("densenet121", 64, "global_pool.pool:input"),
        ("swin_tiny_patch4_window7_224", 224, "head.global_pool.pool:input"),
        ("vit_tiny_patch16_224", 224, "blocks.11.attn.qkv:input"),
    ],
)
def test_the_last_map_that_matters_is_found(name, size, layer):
    guard = ag.wrap(timm.create_model(name), penalties=[ag.GradCAMRRR(1.0)], example_input=(3, size, size))
    assert guard.layers == {"gradcamrrr": (layer,)}


def test_a_classifier_that_starts_from_zero_hides_no_map():
    model = pooled()
    nn.init.zeros_(model[-1].weight)
    guard = ag.wrap(model, penalties=[ag.GradCAMRRR(1.0)], example_input=(1, 6, 6))
    assert guard.layers == {"gradcamrrr": ("1:input",)}
    assert (model[-1].weight == 0).all()


def test_the_weights_of_an_attention_are_no_map():
    """Where it is not fused they pass modules, query by key, and are square like an image."""
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2)
    for block in model.blocks:
        block.attn.fused_attn = False
    guard = ag.wrap(model, penalties=[ag.GradCAMRRR(1.0)], example_input=(3, 32, 32))
    assert guard.layers == {"gradcamrrr": ("blocks.1.attn.qkv:input",)}


def test_one_input_gradient_a_score(monkeypatch):
    calls = []
    original = step_module.scaled_gradient
    monkeypatch.setattr(step_module, "scaled_gradient", lambda *a: calls.append(1) or original(*a))
    penalties = [
        ag.GradMask(1.0),
        ag.GradMask(1.0, norm="l1", name="b"),
        ag.RRR(1.0),
        ag.RRR(1.0, pixels="mean", name="c"),
    ]
    x, y, mask = batch(classes=3)
    ag.wrap(plain_cnn(outputs=3), penalties=penalties)(x, y, mask=mask)
    assert len(calls) == 2


def test_full_mask_is_free_and_rows_without_annotation_carry_nothing(penalty):
    x, y, mask = batch()
    guard = ag.wrap(plain_cnn(), penalties=[penalty()], criterion_weight=0.0)
    assert guard(x, y, mask=torch.ones_like(mask)).terms["it"] == 0
    annotated = torch.tensor([True, False, True, False])
    mask[~annotated] = float("nan")
    x.requires_grad_()
    guard(x, y, mask=mask, annotated=annotated).loss.backward()
    gradient = [p.grad.clone() for p in guard.parameters()]
    assert all(g.isfinite().all() for g in gradient)
    if "expected" not in str(type(getattr(guard.penalties[0], "attribution", None))).lower():
        assert (x.grad[~annotated] == 0).all()


@pytest.mark.parametrize("outputs", ["one", "labels"])
def test_one_output_and_several_labels_are_penalised(penalty, outputs):
    x, y, mask = batch()
    target = y.float() if outputs == "one" else torch.rand(4, 3).round()
    criterion = None if outputs == "one" else nn.BCEWithLogitsLoss()
    guard = ag.wrap(plain_cnn(outputs=1 if outputs == "one" else 3), penalties=[penalty()], criterion=criterion)
    for _ in range(20):  # a rectified map of one output can be 0 by chance of the weights
        out = guard(x, target, mask=mask)
        if out.terms["it"] > 0:
            break
        for module in guard.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    assert out.terms["it"] > 0
    out.loss.backward()
    assert all(p.grad.isfinite().all() for p in guard.parameters())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_terms_without_a_graph_where_none_is_wanted(penalty, context):
    guard = ag.wrap(plain_cnn(), penalties=[penalty()])
    x, y, mask = batch()
    torch.manual_seed(5)
    expected = guard(x, y, mask=mask)
    with context():
        torch.manual_seed(5)
        out = guard(x, y, mask=mask)
    torch.testing.assert_close(out.terms["it"], expected.terms["it"])
    assert not out.loss.requires_grad


def test_modes_gradients_and_hooks_stay_as_they_were(penalty):
    model = plain_cnn(norm=True, dropout=0.5)
    model[1].eval()
    flags = [m.training for m in model.modules()]
    x, y, mask = batch()
    guard = ag.wrap(model, penalties=[penalty()])
    guard(x, y, mask=mask)
    assert [m.training for m in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert guard._network.capture.recording is None


class Doubles(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        return 2 * g


class Once(nn.Module):
    def forward(self, x):
        return Doubles.apply(x)


def test_an_operator_without_second_derivative_is_named_before_anything_changes():
    model = plain_cnn(norm=True)
    model.insert(1, Once())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    x, y, mask = batch()
    guard = ag.wrap(model, penalties=[ag.GradMask(1.0)])
    with pytest.raises(ag.errors.ModelError, match="once_differentiable"):
        guard(x, y, mask=mask)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_hardsigmoid_and_fused_attention_are_given_an_equal_form():
    gate = nn.Sequential(plain_cnn(), nn.Hardsigmoid(), nn.Linear(2, 2))
    guard = ag.wrap(gate, penalties=[ag.GradMask(1.0)])
    x, y, mask = batch()
    out = guard(x, y, mask=mask)
    out.loss.backward()
    torch.testing.assert_close(out.logits, gate(x))
    assert gate[0][0].weight.grad.isfinite().all()


@pytest.mark.filterwarnings("default:.*is blind")
def test_a_blind_map_warns_once_and_names_the_alternative():
    model = pooled()
    with torch.no_grad():
        model[-1].weight.copy_(-model[-1].weight.abs())  # no evidence for any class
    guard = ag.wrap(model, penalties=[ag.GradCAMRRR(1.0)])
    x, y, mask = batch(size=6, classes=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        guard(x, y, mask=mask)
        guard(x, y, mask=mask)
    messages = [str(w.message) for w in caught]
    assert len([m for m in messages if "is blind" in m and 'score="projection"' in m]) == 1


def test_the_irrelevant_region_grows_by_dilate():
    """A map penalised under a mask whose irrelevant part was grown by hand is the same."""
    x, y, mask = batch(size=12, classes=3)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    grown = 1 - ag.masks.dilate(1 - mask, 1)
    guard = ag.wrap(model, penalties=[ag.GradCAMRRR(1.0, dilate=1)])
    ours = guard(x, y, mask=mask).terms["gradcamrrr"]
    guard = ag.wrap(guard.unwrap(), penalties=[ag.GradCAMRRR(1.0)])
    assert torch.equal(ours, guard(x, y, mask=grown).terms["gradcamrrr"])
    assert ours > guard(x, y, mask=mask).terms["gradcamrrr"]


def test_half_precision_gradients_do_not_underflow():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    with torch.no_grad():
        model[-1].weight.mul_(1e-4)  # its gradient falls among the smallest float16 values, one layer below
    guard = ag.wrap(model, penalties=[ag.GradMask(1.0, norm="l1")])
    x, y, mask = batch()
    full = guard(x, y, mask=mask)
    with torch.autocast("cpu", dtype=torch.float16):
        half = guard(x, y, mask=mask)
    half.loss.backward()
    torch.testing.assert_close(half.terms["gradmask"], full.terms["gradmask"], rtol=3e-3, atol=0)
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_compiled_penalties_on_input_gradients_are_refused_by_name_and_closed_forms_run():
    torch._dynamo.reset()
    x, y, mask = batch(size=6, classes=3)
    guard = ag.wrap(pooled(), penalties=[ag.GradMask(1.0)], example_input=(1, 6, 6))
    with pytest.raises(Exception, match="penalty on input gradients"):
        torch.compile(guard, backend="aot_eager", fullgraph=True)(x, y, mask=mask)
    torch._dynamo.reset()
    guard = ag.wrap(pooled(), penalties=[ag.GradCAMRRR(1.0)], example_input=(1, 6, 6))
    compiled = torch.compile(guard, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, y, mask=mask).loss, guard(x, y, mask=mask).loss, rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


@given(st.integers(0, 2**31 - 1), st.booleans(), st.sampled_from(["gradcam", "hirescam"]))
def test_closed_form_and_autograd_agree_on_random_networks(seed, pool, cam):
    torch.manual_seed(seed)
    guard = ag.wrap(pooled(pool), penalties=[ag.GradCAMRRR(1.0, cam=cam, normalize="none", relu=False)])
    x, y, mask = batch(size=6, classes=3)
    closed = guard(x, y, mask=mask).terms["gradcamrrr"]
    guard._plan.tails.find = lambda point, x: None
    torch.testing.assert_close(guard(x, y, mask=mask).terms["gradcamrrr"], closed, rtol=1e-5, atol=1e-7)


def test_integrated_gradients_sum_to_the_difference_of_the_scores():
    """Completeness, in many steps, on a network without kinks."""
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(48, 2)).double()
    x, y, mask = batch(size=6, dtype=torch.float64)
    seen = {}

    class Keep(ag.IntegratedGradients):
        def __call__(self, trace):
            seen["map"] = super().__call__(trace)
            return seen["map"]

    ag.wrap(model, penalties=[ag.AttributionPenalty(1.0, Keep(64))])(x, y, mask=mask)
    difference = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None]).squeeze(1)
    torch.testing.assert_close(seen["map"].sum((1, 2)), difference, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: ag.GradMask(1.0, score="softmax"), ag.errors.RangeError),
        (lambda: ag.GradMask(1.0, norm="rms"), ag.errors.RangeError),
        (lambda: ag.GradMask(1.0, healthy=-1), ag.errors.RangeError),
        (lambda: ag.GradMask(1.0, dilate=-1), ag.errors.RangeError),
        (lambda: ag.GradMask(1.0, dilate=0.5), ag.errors.TypeMismatchError),
        (lambda: ag.RRR(1.0, score="contrast"), ag.errors.RangeError),
        (lambda: ag.RRR(1.0, pixels="max"), ag.errors.RangeError),
        (lambda: ag.GradCAMRRR(1.0, cam="gradcam++"), ag.errors.RangeError),
        (lambda: ag.GradCAMRRR(1.0, score="contrast"), ag.errors.RangeError),
        (lambda: ag.GradCAMRRR(1.0, normalize="softmax"), ag.errors.RangeError),
        (lambda: ag.AttributionPenalty(1.0, ag.IntegratedGradients), ag.errors.TypeMismatchError),
        (lambda: ag.AttributionPenalty(1.0, ag.InputGradient(), pixels="max"), ag.errors.RangeError),
        (lambda: ag.IntegratedGradients(0), ag.errors.RangeError),
        (lambda: ag.InputGradient("softmax"), ag.errors.RangeError),
    ],
)
def test_bad_arguments_are_refused_where_they_are_made(make, error):
    with pytest.raises(error, match=r"got .*; needed .*; "):
        make()


@pytest.mark.parametrize(
    ("penalty", "match"),
    [
        (lambda: ag.GradCAMRRR(1.0, layer="1"), "spatial extent"),
        (lambda: ag.GradCAMRRR(1.0, layer="0.0"), "overwrites in place"),
        (lambda: ag.GradMask(1.0, score="nonhealthy", healthy=3), "healthy=3"),
        (lambda: ag.AttributionPenalty(1.0, lambda trace: trace.batch.x), "of the image's size"),
        (lambda: ag.AttributionPenalty(1.0, lambda trace: trace.batch.x[:, 0]), "without a graph"),
    ],
)
def test_what_shows_at_the_first_call_is_one_clear_error(penalty, match):
    model = pooled()
    x, y, mask = batch(size=6, classes=3)
    with pytest.raises(ag.AttribGuardError, match=match):
        ag.wrap(model, penalties=[penalty()])(x, y, mask=mask)


def test_a_network_without_a_map_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 3))
    with pytest.raises(ag.errors.LayerError, match="spatial extent"):
        ag.wrap(model, penalties=[ag.GradCAMRRR(1.0)], example_input=(1, 6, 6))
