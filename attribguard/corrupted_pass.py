"""What is read of a pass over corrupted images, and what is kept of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attribguard.corruption import Corruption
from attribguard.double_backward.phase import saved_tensors_are_packed
from attribguard.functional.norms import at_least_float32
from attribguard.layout import Features

__all__ = ["Compared", "Comparison", "Corrupted", "CorruptedPass", "CorruptedReads", "points_read"]

Comparison = Callable[[Tensor, Tensor], Tensor]


class Corrupted(NamedTuple):
    """The pass over the corrupted images.

    Attributes:
        x: (N, C, H, W), the corrupted images.
        features: as :attr:`attribguard.Trace.features`.
    """

    x: Tensor
    features: Features


class Compared(NamedTuple):
    """What a penalty made of both passes, for the rows alone in which they can differ.

    Attributes:
        rows: those rows, for ``out[rows] = values``: (M,) indices, or a slice for all.
        values: layer to what ``Penalty.compare`` returned, in the order of the pass.
    """

    rows: Tensor | slice
    values: dict[str, Tensor]


class CorruptedReads(NamedTuple):
    """A corruption, and what is read of the pass over the corrupted images; of nothing, no pass is run.

    Attributes:
        corruption: how to make them.
        whole: the places whose features are read.
        comparisons: penalty to the places at which it compares the two passes, and how.
    """

    corruption: Corruption
    whole: tuple[str, ...]
    comparisons: Mapping[str, tuple[tuple[str, ...], Comparison]]


def points_read(reads: CorruptedReads) -> tuple[str, ...]:
    """All places that are read; a function, for a compiled graph of torch 2.6 follows no property of a named tuple.

    Args:
        reads: of one pass.
    """
    compared = [point for points, _ in reads.comparisons.values() for point in points]
    return tuple(dict.fromkeys((*reads.whole, *compared)))


def _saved_as_it_is() -> contextlib.AbstractContextManager[Any]:
    """What a comparison saves stays, in an activation checkpoint too: that region's second run does not compare."""
    if torch.compiler.is_compiling() or not saved_tensors_are_packed():
        return contextlib.nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.detach(), lambda kept: kept)


class CorruptedPass:
    """What is kept of one pass.

    Args:
        reads: what is read of it.
        rows: (M,), the rows that are shown to the network; ``None`` for all.

    Attributes:
        whole: place to features, (M, ...).
        compared: penalty to place to the result of the comparison.
    """

    def __init__(self, reads: CorruptedReads, rows: Tensor | None) -> None:
        self.rows = rows
        self.whole: dict[str, Tensor] = {}
        self.compared: dict[str, dict[str, Tensor]] = {penalty: {} for penalty in reads.comparisons}
        self._reads = reads

    def keep(self, point: str, clean: Tensor, corrupted: Tensor) -> None:
        """Take what passes a place, as the network made it: compare it, and keep it only where it is read whole.

        Args:
            point: the place.
            clean: what passed it in the main pass, of all images, at least float32.
            corrupted: what passes it now, of the rows.
        """
        if point in self._reads.whole:
            self.whole[point] = corrupted
        with torch.autocast(corrupted.device.type, enabled=False), _saved_as_it_is():
            for penalty, (points, comparison) in self._reads.comparisons.items():
                if point in points:
                    own = clean if self.rows is None else clean[self.rows]
                    self.compared[penalty][point] = comparison(own, at_least_float32(corrupted))
