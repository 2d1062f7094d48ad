"""The mode in which a pass runs that will be differentiated twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from attribguard.double_backward.batch_norm import batch_norm
from attribguard.double_backward.convolution import conv2d
from attribguard.double_backward.phase import Phase
from attribguard.double_backward.relu import relu

__all__ = ["CheaperDoubleBackward"]

_FORMS: dict[Callable[..., Any], Callable[..., Any]] = {torch.conv2d: conv2d, F.batch_norm: batch_norm, F.relu: relu}


class CheaperDoubleBackward(TorchFunctionMode):
    """Gradients that are cheaper to differentiate, of ``F.conv2d``, ``F.batch_norm`` and ``F.relu``; the same values.

    Modules and torch stay as they are.

    Args:
        phase: of the step; inner gradients have to be taken inside of its :meth:`Phase.towards_input` for it to pay.
    """

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self._phase = phase

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        form = _FORMS.get(func)
        return func(*args, **(kwargs or {})) if form is None else form(self._phase, *args, **(kwargs or {}))
