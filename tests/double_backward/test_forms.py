"""Convolution, BatchNorm and ReLU with a double backward of their own: derivatives by differences, torch's values."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from attribguard.double_backward import CheaperDoubleBackward, Phase, batch_norm

pytestmark = pytest.mark.skipif(
    not hasattr(torch._C._autograd, "_top_saved_tensors_default_hooks"),
    reason="this torch does not tell whether saved tensors are packed, so that everything runs as its own",
)

CONVOLUTIONS = {
    "plain": (4, 3, {}),
    "stride": (4, 3, {"stride": 2, "padding": 1}),
    "stride and dilation by side": (4, 3, {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}),
    "groups": (4, 3, {"groups": 2, "padding": 1}),
    "depthwise": (4, 3, {"groups": 4}),
    "one by one": (3, 1, {}),
    "by name": (4, 3, {"padding": "same"}),
}
SHAPES = {"images": (3, 4, 5, 2), "vectors": (6, 4), "lines": (2, 4, 5)}
SCALES = {"random": lambda c: torch.randn(c), "zero": lambda c: torch.zeros(c), "none": lambda c: None}


def leaf(tensor):
    return None if tensor is None else tensor.double().requires_grad_()


def ran_by_formula(y):
    return y.grad_fn.name() in ("_Conv2dBackward", "_BatchNormBackward", "_ReLUBackward")


def input_gradient(function, x, v):
    """The gradient of a weighted output with respect to x, as a guarded step takes it."""
    phase = Phase()
    with CheaperDoubleBackward(phase):
        y = function(x)
    with phase.towards_input():
        (gradient,) = torch.autograd.grad(y, x, v, create_graph=True)
    return gradient


def check_second_derivatives(function, x, *parameters):
    """Against differences, with respect to the images, the parameters and what comes back."""
    v = torch.randn_like(function(x, *parameters), requires_grad=True)
    given = [x, v, *(p for p in parameters if p is not None)]

    def gradient(x, v, *some):
        some = iter(some)
        filled = [None if p is None else next(some) for p in parameters]
        return input_gradient(lambda x: function(x, *filled), x, v)

    assert torch.autograd.gradcheck(gradient, given)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_the_convolutions_second_derivatives_are_those_by_differences(case, bias):
    width, size, options = CONVOLUTIONS[case]
    x, weight = (
        leaf(torch.randn(2, width, 6, 5)),
        leaf(torch.randn(width, width // options.get("groups", 1), size, size)),
    )
    check_second_derivatives(
        lambda x, w, b=None: F.conv2d(x, w, b, **options), x, weight, *([leaf(torch.randn(width))] if bias else [])
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", SHAPES)
def test_batchnorms_second_derivatives_are_those_by_differences(shape, scale):
    """A scale of 0 too, from which residual branches start."""
    weight, bias = (leaf(SCALES[scale](4)) for _ in range(2))
    x = leaf(3 + 2 * torch.randn(SHAPES[shape]))
    check_second_derivatives(lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), x, weight, bias)


@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_batchnorms_second_derivatives_hold_in_single_precision_far_from_zero(mean):
    x, v, norm = mean + torch.randn(8, 4, 6, 6), torch.randn(8, 4, 6, 6), nn.BatchNorm2d(4)
    results = []
    for form, dtype in ((True, torch.float32), (False, torch.float64)):
        norm, image, back = norm.to(dtype), x.to(dtype).requires_grad_(), v.to(dtype)
        if form:
            gradient = input_gradient(norm, image, back)
        else:
            (gradient,) = torch.autograd.grad(norm(image), image, back, create_graph=True)
        results.append(torch.autograd.grad(gradient.square().sum(), [norm.weight, image]))
    for ours, exact in zip(*results, strict=True):
        # An image's own rounding is 300 * 6e-8 here, whatever the form.
        tolerance = (1e-5 + 3e-7 * mean) * exact.abs().max().item()
        torch.testing.assert_close(ours.double(), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1),
        lambda: nn.Conv2d(4, 4, 3, groups=4, bias=False),
        lambda: nn.BatchNorm2d(4),
        lambda: nn.BatchNorm2d(4, affine=False),
        lambda: nn.BatchNorm2d(4, momentum=None),
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        lambda: nn.ReLU(),
        lambda: nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_statistics_and_first_gradients_are_torchs_own(make, layout):
    module = make().to(memory_format=layout)
    results = []
    for mode in (CheaperDoubleBackward(Phase()), torch.enable_grad()):
        torch.manual_seed(1)
        x = torch.randn(3, 4, 7, 6).contiguous(memory_format=layout).requires_grad_()
        state = {key: value.clone() for key, value in module.state_dict().items()}
        module.zero_grad()
        with mode:
            y = module(x)
        assert ran_by_formula(y) == isinstance(mode, CheaperDoubleBackward)
        y.square().sum().backward()
        results.append([y.detach(), x.grad, *(p.grad.clone() for p in module.parameters()), *module.buffers()])
        results[-1] = [t.clone() for t in results[-1]]
        module.load_state_dict(state)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("inplace", [False, True])
def test_relus_second_derivatives_are_those_by_differences_and_no_zeros_are_sent_back(inplace):
    x, v = leaf(torch.randn(2, 3, 4)), leaf(torch.randn(2, 3, 4))

    def gradient(x, v):
        return input_gradient(lambda x: rectified(x.sinh()), x, v)

    def rectified(y):
        z = F.relu(y, inplace)
        return y + z if inplace else z  # the same tensor, so that it is twice that

    assert torch.autograd.gradcheck(gradient, [x, v])
    torch.testing.assert_close(gradient(x, v), torch.autograd.grad(rectified(x.sinh()), x, v)[0])
    alone = input_gradient(lambda x: F.relu(x, inplace=False), x, v)
    assert torch.autograd.grad(alone.sum(), x, retain_graph=True, allow_unused=True) == (None,)
    assert torch.equal(torch.autograd.grad(alone.sum(), v)[0], (x > 0).double())


def test_what_batchnorm_sends_back_is_not_kept_for_the_convolution_before_it(monkeypatch):
    forward, storages = batch_norm._BatchNormInputGradient.forward, []

    def watched(ctx, *args):
        gradient = forward(ctx, *args)
        storages.append(gradient.untyped_storage()._weak_ref())
        return gradient

    monkeypatch.setattr(batch_norm._BatchNormInputGradient, "forward", staticmethod(watched))
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    x = torch.randn(4, 2, 9, 9, requires_grad=True)
    gradient = input_gradient(model, x, torch.randn(4, 3, 5, 5))
    assert [torch.UntypedStorage._expired(storage) for storage in storages] == [True, True]
    gradient.square().sum().backward()


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_every_gradient_with_a_graph_is_autograds_to_every_order(norm, inner):
    """Of the parameters too, and a third time where torch has it: not through BatchNorm."""
    model = nn.Sequential(nn.Conv2d(2, 3, 3), *([nn.BatchNorm2d(3)] if norm else []), nn.Tanh()).double()
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    results = []
    for phase in (Phase(), None):
        with torch.enable_grad() if phase is None else CheaperDoubleBackward(phase):
            y = model(x)
        leaves = [x, *model.parameters()]
        with phase.towards_input() if phase is not None and inner else torch.enable_grad():
            first = torch.autograd.grad(y.pow(3).sum(), leaves[:1] if inner else leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves[:2], create_graph=True)
        if norm:
            with pytest.raises(RuntimeError, match="3rd"):
                torch.autograd.grad(second[1].square().sum(), leaves[1])
        third = [] if norm else torch.autograd.grad(second[1].square().sum(), leaves[:2])
        results.append([t.detach() for t in (*first, *second, *third)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_images_own_gradient_is_left_out_only_when_the_step_is_over():
    x, module = torch.randn(1, 2, 5, 5, requires_grad=True), nn.Conv2d(2, 2, 3)
    phase = Phase(x)
    with CheaperDoubleBackward(phase):
        y = module(x)
    (read,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    with phase.towards_input():
        (inner,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert torch.equal(inner, read)
    phase.over = True
    y.sum().backward()
    assert x.grad is None
    assert module.weight.grad.abs().sum() > 0


CASES = {
    "half precision": lambda x, m: m.bfloat16()(x.bfloat16()),
    "autocast": lambda x, m: _autocast(x, m),
    "without gradients": lambda x, m: torch.no_grad()(m)(x),
    "checkpointing": lambda x, m: checkpoint(m, x, use_reentrant=False),
    "saved elsewhere": lambda x, m: _saved(x, m),
    "eval mode": lambda x, m: m.eval()(x),
    "a subclass": lambda x, m: m(x.as_subclass(_Subclass)),
}


class _Subclass(torch.Tensor):
    pass


def _autocast(x, module):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return module(x)


def _saved(x, module):
    with torch.autograd.graph.save_on_cpu():
        return module(x)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("make", [lambda: nn.Conv2d(2, 2, 3), lambda: nn.BatchNorm2d(2), nn.ReLU])
def test_what_the_formulas_are_not_made_for_runs_as_torchs_own(case, make, monkeypatch):
    module, seen = make(), []
    if case == "eval mode" and not isinstance(module, nn.BatchNorm2d):
        pytest.skip("the same in all modes")
    for name in ("convolution._Conv2d", "batch_norm._BatchNorm", "relu._ReLU"):
        monkeypatch.setattr(f"attribguard.double_backward.{name}.apply", lambda *a: seen.append(a))
    with CheaperDoubleBackward(Phase()):
        y = CASES[case](torch.randn(2, 2, 5, 5, requires_grad=True), module)
    assert y.shape[0] == 2
    assert seen == []


def test_one_value_a_channel_is_refused_as_torch_does():
    with CheaperDoubleBackward(Phase()), pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(2)(torch.randn(1, 2, 1, 1, requires_grad=True))
