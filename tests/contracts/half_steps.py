"""One guarded step in half precision against the same step in full precision, on any device."""

import contextlib

import torch
from torch import nn

from tests.contracts.every_term import HEADS, guarded
from tests.heads.small import SHAPE

HALF = [torch.float16, torch.bfloat16]
# What the rounding of a few layers adds up to in a parameter's gradient, relative. More in a decoder, whose ReLUs a
# rounding pushes across 0; and a map that is divided by its largest value has no gradient to compare where two values
# come close to it.
GRADIENT_ERROR = {torch.float16: 2e-2, torch.bfloat16: 5e-2}
DECODER_ERROR = 0.3
DIVIDED = ("gradcam", "gradcam predicted")


def smooth(tail="linear", scale=10.0):
    """Two halving convolutions and pooling, each image alone; with a `"deep"` tail the classifier is not linear.

    The scale keeps the predictions away from 1/2, where RRR is the small difference of large numbers. Parameters are
    numbers that bfloat16 has: what is compared is the step, and not two networks.
    """
    layers = [nn.Conv2d(1, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.SiLU()]
    deep = [nn.Linear(16, 16), nn.Tanh()] if tail == "deep" else []
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *deep, nn.Linear(16, 2))
    with torch.no_grad():
        model[-1].weight.mul_(scale)
    return model.bfloat16().float()


def half_and_full(name, model, inputs, dtype, device="cpu"):
    """The term's value and its gradients in half and in full precision: ((value, gradient), (value, gradient)).

    The term is weighed to make a loss of about 1. In half precision its gradients come as a training gets them:
    through a GradScaler, in the first step that this does not skip.
    """
    model.to(device)
    x, y, mask, segmentation = (tensor.to(device) for tensor in inputs)
    x = x.bfloat16().float()
    options = {"example_input": SHAPE} if name in HEADS else {}
    guard = guarded([name], model, criterion_weight=0.0, **options)
    (term,) = (*guard.penalties, *guard.heads.values())
    still = torch.optim.SGD(guard.parameters(), lr=0.0)

    def step(context, enabled=False):
        scaler = torch.amp.GradScaler(device, enabled=enabled)
        for _ in range(40):
            torch.manual_seed(3)
            guard.zero_grad()
            with context():
                out = guard(x, y, mask=mask, segmentation=segmentation)
            scaler.scale(out.loss).backward()
            scaler.unscale_(still)
            gradient = torch.cat([p.grad.flatten() for p in guard.parameters() if p.grad is not None])
            if not enabled or bool(gradient.isfinite().all()):
                break
            scaler.step(still)
            scaler.update()
        return out.terms[name], gradient

    def half():
        return torch.autocast(device, dtype=dtype)

    # First of all a step in half precision, so that the dry runs, too, happen under autocast.
    value, _ = step(half)
    assert value > 0
    term.weight = 1 / value.item()
    return step(half, enabled=dtype == torch.float16), step(contextlib.nullcontext)


def check_half(name, model, inputs, dtype, device="cpu"):
    """Hold what `half_and_full` gives to the contract."""
    (value, gradient), (true_value, true_gradient) = half_and_full(name, model, inputs, dtype, device)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, true_value, rtol=1e-2, atol=0)
    assert gradient.isfinite().all()
    if name not in DIVIDED:
        error = DECODER_ERROR if name in HEADS else GRADIENT_ERROR[dtype]
        assert (gradient - true_gradient).norm() <= error * true_gradient.norm()
