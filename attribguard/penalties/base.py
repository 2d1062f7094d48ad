"""What a penalty is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real

from torch import Tensor, nn

from attribguard.corruption import Corruption
from attribguard.errors import RangeError, TypeMismatchError
from attribguard.layers import AUTO, LAST, Layers
from attribguard.trace import Trace

__all__ = ["Penalty", "check_weight"]


def check_weight(weight: float, what: str) -> float:
    """Refuse a weight that is not a finite number of 0 or more.

    Args:
        weight: the number.
        what: its name, for the error.

    Returns:
        The weight as a float.

    Raises:
        TypeMismatchError: if it is not a number.
        RangeError: if it is negative or not finite.
    """
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise TypeMismatchError(got=f"{what} {weight!r}", needed="a number", fix="pass a float of 0 or more")
    if not (math.isfinite(weight) and weight >= 0):
        raise RangeError(got=f"{what} {weight}", needed="a finite number, 0 or more", fix="0 takes it out of the loss")
    return float(weight)


class Penalty(nn.Module, ABC):
    """A loss term without parameters of its own. Subclass it and write ``forward(trace) -> (N,)``.

    The value is per sample and unweighted; the guard weighs it, sets the rows that are not annotated to 0 and takes
    the mean. A subclass declares what it needs: ``layers``, and the attributes ``needs_input_gradient`` (whether it
    calls :meth:`Trace.input_gradient`), ``needs_layer_gradient`` (whether it calls :meth:`Trace.layer_gradient` for
    its one layer) and ``corruption`` (what it passes to :meth:`Trace.corrupted`).

    Args:
        weight: 0 or more; may be changed between steps (``penalty.weight = ...``), for a warm-up.
        layers: ``"auto"``: what enters the network's activations; ``"last"``: the last map over the image on which the
            logits depend; otherwise names or glob patterns of modules, which
            stand for what a module gives out. ``"layer1.0.relu#1"`` is a module's second call in one pass,
            ``"fc:input"`` what enters a module.
        name: the term's name in the output; the class's name in lower case by default.

    Raises:
        RangeError: if the weight is negative or not finite.
        TypeMismatchError: if the weight is not a number, or the layers are not strings.

    Example:
        >>> class LogitSize(Penalty):
        ...     def forward(self, trace):
        ...         return trace.logits.square().mean(1)
        >>> LogitSize(0.1).name
        'logitsize'
    """

    needs_input_gradient: bool = False
    needs_layer_gradient: bool = False
    corruption: Corruption | None = None

    def __init__(self, weight: float, *, layers: str | Sequence[str] = (), name: str | None = None) -> None:
        super().__init__()
        self.weight = weight
        named = (layers,) if isinstance(layers, str) else tuple(layers)
        self.layers: Layers = layers if isinstance(layers, str) and layers in (AUTO, LAST) else named
        if not all(isinstance(layer, str) for layer in self.layers):
            raise TypeMismatchError(got=f"layers={layers!r}", needed="names of modules", fix="pass strings")
        self.name = type(self).__name__.lower() if name is None else name

    @property
    def weight(self) -> float:
        """The factor in front of the term."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._weight = check_weight(weight, "weight")

    @abstractmethod
    def forward(self, trace: Trace) -> Tensor:
        """The penalty of each sample: (N,), unweighted."""

    def extra_repr(self) -> str:
        """What distinguishes this one."""
        return f"weight={self.weight}, name={self.name!r}"
