"""BatchNorm in train mode whose input gradient is differentiated by formula, in few passes over memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.double_backward.phase import Phase, formulas_apply

__all__ = ["batch_norm", "remake"]


def batch_norm(
    phase: Phase,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``torch.nn.functional.batch_norm`` with the cheaper double backward, where that applies."""
    # One value a channel has no variance, and torch says so.
    if not training or input.numel() <= input.shape[1] or not formulas_apply(input, weight, bias):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    running = running_mean, running_var, momentum
    return _BatchNorm.apply(input, weight, bias, phase, eps, *running)  # type: ignore[no-any-return]


def _backward(
    g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor, eps: float, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the input, the weight and the bias, as far as they are wanted."""
    backward = torch.ops.aten.native_batch_norm_backward
    return backward(g, x, weight, None, None, mean, scale, True, eps, list(wanted))  # type: ignore[no-any-return]


def remake(gradient: Tensor) -> Callable[[], Tensor] | None:
    """How to make one of BatchNorm's input gradients again from what is kept anyway; ``None`` for any other tensor.

    A function's context is its node in the graph, and holds what was saved until it ran.

    Args:
        gradient: what comes back to a layer.
    """
    node: Any = gradient.grad_fn
    if node is None or node.name() != f"{_BatchNormInputGradient.__name__}Backward":
        return None

    def again() -> Tensor:
        g, x, weight, mean, scale, *_ = node.saved_tensors
        with torch.no_grad():
            return _backward(g, x, weight, mean, scale, node.eps, (True, False, False))[0]

    return again


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, phase: Phase, eps: float, *running: Any
    ) -> Tensor:
        running_mean, running_var, momentum = running
        y, mean, scale = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.phase, ctx.eps = phase, eps
        ctx.save_for_backward(x, weight, mean, scale)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        if ctx.phase.inner:
            return _BatchNormInputGradient.apply(g, x, weight, mean, scale, ctx.eps), *(None,) * 7
        return *_backward(g, x, weight, mean, scale, ctx.eps, ctx.needs_input_grad[:3]), *(None,) * 5


class _BatchNormInputGradient(torch.autograd.Function):
    r"""BatchNorm's input gradient, :math:`\gamma s P(g)`.

    With :math:`\hat x` the normalised input, s the inverse standard deviation, m the mean over a channel's N elements
    and :math:`P(u) = u - m(u) - \hat x \, m(u \hat x)`. For the gradient v of the result and
    :math:`Q = \sum v g - (\sum v \sum g + \sum v \hat x \sum g \hat x) / N` the gradients are
    :math:`\gamma s P(v)` for g, :math:`s Q` for :math:`\gamma` and
    :math:`-\gamma s^2 \hat x Q / N - s (m(g \hat x) \, \gamma s P(v) + m(v \hat x) \, \gamma s P(g))` for x.
    There is no division by :math:`\gamma`, which may be 0.
    """

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, scale: Tensor, eps: float
    ) -> Tensor:
        gradient, g_x, g_sum = _backward(g, x, weight, mean, scale, eps, (True, True, True))
        ctx.eps = eps
        # Not the gradient itself: it is as large as g.
        ctx.save_for_backward(g, x, weight, mean, scale, g_x, g_sum)
        return gradient

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, scale, g_x, g_sum = ctx.saved_tensors
        if torch.is_grad_enabled():  # the formula's own derivative is not written down
            # Views, so that what g owes to x is not counted here as well.
            given = g.view_as(g), x.view_as(x), None if weight is None else weight.view_as(weight)
            again = _backward(*given, mean, scale, ctx.eps, (True, False, False))[0]
            asked = [t for t in given if t is not None and t.requires_grad]
            found = iter(torch.autograd.grad(again, asked, v, create_graph=True))
            return *(next(found) if t is not None and t.requires_grad else None for t in given), None, None, None
        n = x.numel() // x.shape[1]
        g_gradient, v_x, v_sum = _backward(v, x, weight, mean, scale, ctx.eps, (True, True, True))
        # The sum of v * g a channel, in one pass over both: what would be g's scale's gradient.
        zero, one = torch.zeros_like(mean), torch.ones_like(scale)
        v_g = _backward(v, g, None, zero, one, ctx.eps, (False, True, False))[1]
        q = v_g - (v_sum * g_sum + v_x * g_x) / n
        slope = scale if weight is None else weight * scale
        of_v, of_g = -scale * g_x / n, -scale * v_x / n * slope
        # With P(g) written out, the last part of the formula lies on g, on x and on a constant.
        of_x = -slope * scale.square() * q / n - of_g * scale * g_x / n
        shape = (1, -1, *(1,) * (x.dim() - 2))
        centre, a, b, c, rest = (t.view(shape) for t in (mean, of_x, of_v, of_g, -of_g * g_sum / n))
        # In few passes over memory, each of which costs.
        x_gradient = torch.addcmul(rest, x - centre, a).addcmul_(g_gradient, b).addcmul_(g, c)
        return g_gradient, x_gradient, None if weight is None else scale * q, None, None, None
