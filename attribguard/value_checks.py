"""When to look at the values of masks, targets and labels: on an accelerator that means waiting for it."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["VALIDATE", "Validate", "looks_at_values"]

Validate = Literal["auto"] | bool
VALIDATE: tuple[Validate, ...] = ("auto", True, False)

# Mistakes show in the first calls.
_FIRST_CALLS = 10


def looks_at_values(validate: Validate, calls_before: int, x: Any) -> bool:
    """Whether this call looks at values.

    Args:
        validate: ``"auto"``: always on the CPU, in the first ten calls on an accelerator; otherwise the answer.
        calls_before: how many calls there were.
        x: a tensor of the call, for its device.

    Returns:
        The answer; never in a compiled graph, which cannot branch on a value.
    """
    if torch.compiler.is_compiling():
        return False
    if validate != "auto":
        return bool(validate)
    return calls_before < _FIRST_CALLS or (isinstance(x, Tensor) and x.device.type == "cpu")
