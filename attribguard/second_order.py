"""Make a forward pass whose gradient can be differentiated again, or say which operator stands in the way."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from attribguard.double_backward import CheaperDoubleBackward, Phase
from attribguard.errors import ModelError
from attribguard.modes import undisturbed

__all__ = ["SCALES", "check_twice_differentiable", "scaled_gradient", "twice_differentiable"]

# Against underflow and overflow in half-precision layers: powers of two, so that scaling and unscaling round nothing;
# the largest that overflows nowhere is taken.
SCALES = (2.0**14, 2.0**7, 1.0, 2.0**-7, 2.0**-14)


class _EqualForms(TorchFunctionMode):
    """Writes functions without a second derivative in an equal form that has one."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.hardsigmoid:
            return F.relu6(args[0] + 3) / 6
        return func(*args, **(kwargs or {}))


@contextmanager
def twice_differentiable(phase: Phase | None = None) -> Iterator[None]:
    """Forward passes in here use attention that can be differentiated twice (fused kernels cannot).

    Args:
        phase: of the step, to run convolutions and BatchNorm so that this is cheap; ``None`` for plain autograd.
    """
    cheaper = contextlib.nullcontext() if phase is None else CheaperDoubleBackward(phase)
    with sdpa_kernel(SDPBackend.MATH), _EqualForms(), cheaper:
        yield


def check_twice_differentiable(model: nn.Module, select: Callable[[Any], Tensor], x: Tensor) -> None:
    """Differentiate one image's logits twice, to learn at once and not in the middle of a backward pass.

    Args:
        model: the network, which is afterwards as it was.
        select: picks the logits from its output.
        x: (N, C, H, W).

    Raises:
        ModelError: if an operator has no second derivative; its name is in the text.
    """
    with undisturbed(model, x.device), torch.enable_grad(), twice_differentiable():
        leaf = x[:1].detach().clone().requires_grad_()
        # Parameters of the same values, so that a whole backward pass can run and leave nothing on the model's own. It
        # has to be a whole one: towards chosen inputs autograd steps around an operator that refuses.
        twins = {name: p.detach().requires_grad_(p.requires_grad) for name, p in model.named_parameters()}
        logits = select(torch.func.functional_call(model, twins, (leaf,)))
        try:
            (gradient,) = torch.autograd.grad(logits.square().sum(), leaf, create_graph=True)
            gradient.square().sum().backward()
        except RuntimeError as error:
            raise ModelError(
                got=f"a network whose gradient cannot be differentiated again ({str(error).splitlines()[0]})",
                needed="operators with a second derivative, for a penalty on gradients",
                fix="replace that operator, or use a penalty on features such as ActDiff",
            ) from error


def scaled_gradient(scores: Tensor, inputs: Tensor, half: bool) -> Tensor:
    """Differentiate summed scores, with a graph; through half-precision layers scaled against underflow.

    Args:
        scores: any shape.
        inputs: what to differentiate with respect to.
        half: whether float16 values stand between them.

    Returns:
        The gradient, in the shape of ``inputs``; at least float32.
    """
    for scale in SCALES if half else (1.0,):
        (gradient,) = torch.autograd.grad(scores.sum() * scale, inputs, create_graph=True)
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32)) / scale
        if not half or bool(gradient.isfinite().all()):
            break
    return gradient
