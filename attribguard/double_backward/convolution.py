"""Convolutions whose input gradient is differentiated by two convolutions, as many as there must be."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attribguard.double_backward.batch_norm import remake
from attribguard.double_backward.phase import Phase, formulas_apply

__all__ = ["conv2d"]

_aten = torch.ops.aten


class _Geometry(NamedTuple):
    """A convolution but for its tensors."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


def _pair(size: Any) -> list[int]:
    return [size, size] if isinstance(size, int) else list(size)


def conv2d(
    phase: Phase,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """``torch.nn.functional.conv2d`` with the cheaper double backward, where that applies."""
    if isinstance(padding, str) or input.dim() != 4 or not formulas_apply(input, weight, bias):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    geometry = _Geometry(_pair(stride), _pair(padding), _pair(dilation), groups)
    return _Conv2d.apply(input, weight, bias, geometry, phase)  # type: ignore[no-any-return]


def _convolution_backward(
    g: Tensor, x: Tensor, weight: Tensor, geometry: _Geometry, wanted: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the input, the weight and the bias, as far as they are wanted."""
    stride, padding, dilation, groups = geometry
    return _aten.convolution_backward(  # type: ignore[no-any-return]
        g, x, weight, [weight.shape[0]], stride, padding, dilation, False, [0, 0], groups, list(wanted)
    )


def _remade(g: Tensor) -> contextlib.AbstractContextManager[Any]:
    """In here a gradient that BatchNorm made is not saved but made again, for these are most of what a step holds."""
    again = remake(g)
    if again is None:
        return contextlib.nullcontext()
    made = weakref.ref(g)  # torch keeps both functions as long as what is saved
    pack = lambda t: again if t is made() else t  # noqa: E731
    return torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept() if kept is again else kept)


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry, phase: Phase) -> Tensor:
        ctx.geometry, ctx.phase, ctx.is_leaf = geometry, phase, x is phase.leaf
        ctx.save_for_backward(x, weight)
        return torch.conv2d(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        if ctx.phase.inner:
            with _remade(g):
                return _ConvInputGradient.apply(g, weight, x.detach(), ctx.geometry), None, None, None, None
        for_x, for_weight, for_bias, *_ = ctx.needs_input_grad
        dropped = ctx.is_leaf and ctx.phase.over and not torch.is_grad_enabled()
        wanted = (for_x and not dropped, for_weight, for_bias)
        return *_convolution_backward(g, x, weight, ctx.geometry, wanted), None, None


class _ConvInputGradient(torch.autograd.Function):
    """The convolution's input gradient: linear in what comes back and in the weight."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, weight: Tensor, x: Tensor, geometry: _Geometry) -> Tensor:
        ctx.geometry = geometry
        ctx.save_for_backward(g, weight)
        return _convolution_backward(g, x, weight, geometry, (True, False, False))[0]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, weight = ctx.saved_tensors
        for_g, for_weight, *_ = ctx.needs_input_grad
        g_gradient = torch.conv2d(v, weight, None, *ctx.geometry) if for_g else None
        wanted = (False, for_weight, False)
        return g_gradient, _convolution_backward(g, v, weight, ctx.geometry, wanted)[1], None, None
