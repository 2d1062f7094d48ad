"""Where a step stands, which decides what a backward pass has to give; and to what the formulas apply."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Phase", "formulas_apply", "saved_tensors_are_packed"]

# Where the formulas were measured and compared with plain autograd.
_DEVICES = ("cpu",)
_DTYPES = (torch.float32, torch.float64)


class Phase:
    """Where one step stands.

    Args:
        leaf: images of which nobody reads the gradient once the step is over, so that the first convolution need not
            compute it in the loss's backward pass; ``None`` if the caller may read it.

    Attributes:
        inner: whether the gradient that is being taken is of images or features alone, never of parameters.
        over: whether all inner gradients were taken.
    """

    def __init__(self, leaf: Tensor | None = None) -> None:
        self.leaf, self.inner, self.over = leaf, False, False

    @contextmanager
    def towards_input(self) -> Iterator[None]:
        """An inner gradient is taken in here."""
        self.inner = True
        try:
            yield
        finally:
            self.inner = False


def formulas_apply(x: Tensor, *parameters: Tensor | None) -> bool:
    """Whether a function of these may run with a double backward of its own.

    Not in half precision or under autocast, whose casts the formulas know nothing of, and not where saved tensors are
    packed: checkpointing runs the functions again later, as torch's own.

    Args:
        x: what enters.
        parameters: weight and bias, as far as there are any.
    """
    given = [x, *(p for p in parameters if p is not None)]
    return (
        torch.is_grad_enabled()
        and any(t.requires_grad for t in given)
        and all(type(t) in (Tensor, nn.Parameter) and t.dtype == x.dtype for t in given)
        and x.dtype in _DTYPES
        and x.device.type in _DEVICES
        and not torch.is_autocast_enabled(x.device.type)
        and not saved_tensors_are_packed()
    )


def saved_tensors_are_packed() -> bool:
    """Whether what autograd saves goes through hooks, as in activation checkpointing; if torch does not tell, yes."""
    hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return hooks is None or hooks(True) is not None
