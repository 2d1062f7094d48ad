"""What the losses have in common: how they are reduced, and when they look at the targets' values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from attribguard.errors import check_choice
from attribguard.value_checks import VALIDATE, Validate, looks_at_values

__all__ = ["Loss", "Reduction", "Validate"]

Reduction = Literal["mean", "sum", "none"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum", "none")


class Loss(nn.Module, ABC):
    """A loss ``(logits, targets)``, reduced as asked.

    Args:
        reduction: ``"mean"`` and ``"sum"`` over all elements give a scalar. ``"none"`` gives one value a sample, (N,),
            the mean over its labels, whose mean is that of ``"mean"``: this, and not one value an element as in
            torch, is what the guard takes as a criterion; the elements are what :mod:`attribguard.functional` gives.
        validate: whether to look at the targets' values: ``"auto"`` always on the CPU and in the first ten calls on an
            accelerator; never in a compiled graph. Shapes and types are always checked.

    Raises:
        RangeError: if one of them is unknown.
    """

    def __init__(self, *, reduction: Reduction = "mean", validate: Validate = "auto") -> None:
        super().__init__()
        check_choice("reduction", reduction, REDUCTIONS)
        check_choice("validate", validate, VALIDATE)
        self.reduction: Reduction = reduction
        self.validate: Validate = validate
        self._calls = 0

    @abstractmethod
    def elements(self, logits: Tensor, targets: Tensor, *, validate: bool) -> Tensor:
        """The loss before reduction: one value a sample, or one for each of its labels."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss: a scalar, or (N,) with ``reduction="none"``."""
        looks = looks_at_values(self.validate, self._calls, logits)
        if not torch.compiler.is_compiling():
            self._calls += 1
        values = self.elements(logits, targets, validate=looks)
        if self.reduction == "none":
            return values.flatten(1).mean(1) if values.dim() > 1 else values
        return values.sum() if self.reduction == "sum" else values.mean()

    def extra_repr(self) -> str:
        """The settings."""
        return f"reduction={self.reduction!r}"
