"""ReLU whose gradient, when it is differentiated again, sends no map of zeros back to the pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.double_backward.phase import Phase, formulas_apply

__all__ = ["relu"]


def relu(phase: Phase, input: Tensor, inplace: bool = False) -> Tensor:
    """``torch.nn.functional.relu`` with the cheaper double backward, where that applies."""
    if not formulas_apply(input):
        return F.relu(input, inplace)
    return _ReLU.apply(input, inplace)  # type: ignore[no-any-return]


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        y = F.relu(x, inplace)
        if inplace:
            ctx.mark_dirty(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        # The slope is a constant almost everywhere, which torch's own derivative writes as zeros of the map's size.
        return torch.ops.aten.threshold_backward(g, y.detach(), 0), None
