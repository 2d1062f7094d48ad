"""What a penalty is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from torch import Tensor

from attribguard.corruption import Corruption
from attribguard.errors import TypeMismatchError
from attribguard.layers import AUTO, LAST, Layers
from attribguard.term import Term
from attribguard.trace import Trace

__all__ = ["Penalty"]


class Penalty(Term):
    """A loss term without parameters of its own. Subclass it and write ``forward(trace) -> (N,)``.

    The value is per sample and unweighted; the guard weighs it, sets the rows that are not annotated to 0 and takes
    the mean. A subclass declares what it needs: ``layers``, and the attributes ``needs_input_gradient`` (whether it
    calls :meth:`Trace.input_gradient`), ``needs_layer_gradient`` (whether it calls :meth:`Trace.layer_gradient` for
    its one layer) and ``corruption`` (what it passes to :meth:`Trace.corrupted`).

    A penalty on what a corruption changes may have a method ``compare(clean, corrupted)`` instead of reading corrupted
    features. It is called once a layer while the corrupted pass runs, with the features of both passes for the same M
    images, (M, ...) in the network's own layout and at least float32, and :meth:`Trace.compared` gives what it
    returned. Then neither pass's features are held until the whole of them is there. (It may be called before the
    penalty's own ``forward``, for another that shares the pass.)

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
    compare: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(self, weight: float, *, layers: str | Sequence[str] = (), name: str | None = None) -> None:
        super().__init__(weight, type(self).__name__.lower() if name is None else name)
        named = (layers,) if isinstance(layers, str) else tuple(layers)
        self.layers: Layers = layers if isinstance(layers, str) and layers in (AUTO, LAST) else named
        if not all(isinstance(layer, str) for layer in self.layers):
            raise TypeMismatchError(got=f"layers={layers!r}", needed="names of modules", fix="pass strings")

    @abstractmethod
    def forward(self, trace: Trace) -> Tensor:
        """The penalty of each sample: (N,), unweighted."""
