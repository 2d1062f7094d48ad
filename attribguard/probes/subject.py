"""A guard that is measured: its terms before they are weighed, and no trace left on it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attribguard.capture import Capture
from attribguard.errors import RangeError, TypeMismatchError
from attribguard.modes import undisturbed
from attribguard.network import device_of
from attribguard.weighting import Weighting

if TYPE_CHECKING:
    from attribguard.guard import Guard

__all__ = ["Subject", "as_arguments", "measured"]

_ARGUMENTS = ("x", "target", "mask", "segmentation", "annotated")


def as_arguments(batch: Any) -> dict[str, Any]:
    """Read what a loader gives as the arguments of a guarded call.

    Args:
        batch: ``(x, target)``, ``(x, target, mask)`` or a dict with the arguments' names.

    Returns:
        Name to value, ``x`` and ``target`` among them.

    Raises:
        TypeMismatchError: if it is none of these.
        RangeError: if a key is unknown, or one of the two is missing.
    """
    if isinstance(batch, Mapping):
        given = dict(batch)
    elif isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
        given = dict(zip(_ARGUMENTS, batch, strict=False))
    else:
        size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise TypeMismatchError(
            got=f"a batch that is a {type(batch).__name__}{size}",
            needed="(x, target), (x, target, mask) or a dict of the guard's arguments",
            fix="let the loader's collate_fn give one of these",
        )
    if not {"x", "target"} <= set(given) <= set(_ARGUMENTS):
        raise RangeError(
            got=f"a batch with the keys {sorted(map(str, given))}",
            needed=f"x and target, and others out of {_ARGUMENTS[2:]}",
            fix="rename them to the guard's arguments",
        )
    return given


class _Tap(Weighting):
    """Stands in the place of a weighting and keeps the terms, with their graphs."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}

    def add_term(self, name: str) -> None:
        """Nothing is learned."""

    def forward(
        self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shared: Sequence[Tensor] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Keep the terms that the guard trains with; the loss is of no interest."""
        self.kept = {name: term for name, term in terms.items() if weights[name] > 0}
        return torch.zeros(()), {}


class Subject:
    """A guard's own modules, under hooks, a plan and counters apart from the guard's.

    Args:
        guard: the guard.
    """

    def __init__(self, guard: Guard) -> None:
        self.network = copy.copy(guard._network)
        self.network.capture = Capture()
        self.network.capture.install(guard.model, ())
        self._tap, self._guard = _Tap(), copy.copy(guard)
        self._guard._modules = dict(guard._modules)  # a shallow copy shares it with the guard
        self._guard._network, self._guard._plan, self._guard.weighting = self.network, None, self._tap
        self.device = device_of(guard, torch.device("cpu"))

    def terms(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """The terms of one guarded step whose weights are above 0.

        Args:
            arguments: as :func:`as_arguments` gives them, on any device.

        Returns:
            Name to unweighted scalar, with its graph.

        Raises:
            AttribGuardError: as a guarded call does; also without a target, or if all weights are 0.
        """
        inputs = {name: _moved(value, self.device) for name, value in arguments.items()}
        x, target = inputs.pop("x"), inputs.pop("target")
        if target is None and self._guard.criterion != "none":
            raise TypeMismatchError(got="a batch without a target", needed="what the criterion takes", fix="add it")
        self._guard.forward(x, target, **inputs)  # not a call: neither compiled, nor with hooks on the guard
        kept, self._tap.kept = self._tap.kept, {}
        if not kept:
            raise RangeError(got="a guard whose weights are all 0", needed="one above 0", fix="set a term's weight")
        return kept


@contextmanager
def measured(guard: Guard, *, evaluating: bool) -> Iterator[Subject]:
    """Measure a guard, outside of autocast; modes, buffers, hooks, counters and random state are afterwards as before.

    Args:
        guard: the guard.
        evaluating: whether every module is in eval mode meanwhile.
    """
    subject = Subject(guard)
    try:
        # Half precision would underflow small gradients to 0.
        exact = torch.autocast(subject.device.type, enabled=False)
        with undisturbed(guard, subject.device, evaluating=evaluating), exact:
            yield subject
    finally:
        subject.network.capture.remove()


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {key: _moved(part, device) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        make = getattr(value, "_make", type(value))  # of a named tuple
        return make(_moved(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value
