"""From a checked batch to the loss: one step, its terms, their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from attribguard.corruption import Corruption
from attribguard.criterion import Criterion
from attribguard.errors import ShapeError
from attribguard.layers import resolve_layers
from attribguard.network import Network
from attribguard.penalties.base import Penalty
from attribguard.survey import Survey
from attribguard.trace import Batch, Step, Trace

__all__ = ["GuardOutput", "Plan", "Reduction", "make_plan", "objective"]

Reduction = Literal["batch", "annotated"]


class GuardOutput(NamedTuple):
    """What a guarded call gives.

    Attributes:
        loss: scalar, to call ``backward`` on: the criterion and the terms, weighed and summed.
        logits: (N, K), with their graph.
        terms: name to unweighted, detached scalar; the classification loss is ``"criterion"``.
        weights: name to the weight that was in force.
        predictions: name to a head's output.
    """

    loss: Tensor
    logits: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, float]
    predictions: dict[str, Tensor]


class Plan(NamedTuple):
    """Which places and passes a step needs. Made once, so that a compiled step has nothing to look up.

    Attributes:
        points: all places, to be recorded in the main pass.
        layers: penalty to the places it reads.
        corruptions: the corrupted passes to run, each with the places to record there.
        passes: penalty to the corrupted pass it reads; -1 for none.
    """

    points: tuple[str, ...]
    layers: dict[str, tuple[str, ...]]
    corruptions: list[tuple[Corruption, tuple[str, ...]]]
    passes: dict[str, int]


def make_plan(penalties: Sequence[Penalty], survey: Survey) -> Plan:
    """Find each penalty's places, and let equal corruptions share one pass.

    Raises:
        LayerError: if a penalty's layers cannot be had.
    """
    layers = {penalty.name: resolve_layers(penalty.layers, survey) for penalty in penalties}
    shared: dict[Corruption, tuple[str, ...]] = {}
    for penalty in penalties:
        if penalty.corruption is not None:
            shared[penalty.corruption] = _union(shared.get(penalty.corruption, ()), layers[penalty.name])
    order = {None: -1} | {corruption: i for i, corruption in enumerate(shared)}
    passes = {penalty.name: order[penalty.corruption] for penalty in penalties}
    return Plan(_union(*layers.values()), layers, list(shared.items()), passes)


def objective(
    network: Network,
    batch: Batch,
    penalties: Sequence[Penalty],
    plan: Plan,
    criterion: Criterion,
    criterion_weight: float,
    reduction: Reduction,
) -> GuardOutput:
    """Run one step and put its terms together.

    Args:
        network: the wrapped model, with the hooks for all layers installed.
        batch: the checked batch.
        penalties: the terms beside the classification loss.
        plan: what the step needs.
        criterion: ``(logits, target)`` to a scalar or (N,).
        criterion_weight: its weight.
        reduction: what a penalty's sum is divided by.

    Returns:
        The output of the guarded call.

    Raises:
        ShapeError: if the criterion or a penalty returns another shape than it should.
    """
    step = Step(network, batch, plan.points, plan.corruptions)
    loss = _classify(criterion, step.logits, batch.target)
    terms, weights = {"criterion": loss.detach()}, {"criterion": criterion_weight}
    total = criterion_weight * loss
    for penalty in penalties:
        # Squares underflow in half precision; features come as float32 already.
        with torch.autocast(batch.x.device.type, enabled=False):
            trace = Trace(step, plan.layers[penalty.name], penalty.corruption, plan.passes[penalty.name])
            term = _reduce(penalty(trace), batch, penalty.name, reduction)
        total = total + penalty.weight * term
        terms[penalty.name], weights[penalty.name] = term.detach(), penalty.weight
    return GuardOutput(total, step.logits, terms, weights, {})


def _union(*points: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(point for some in points for point in some))


def _classify(criterion: Criterion, logits: Tensor, target: Any) -> Tensor:
    loss = criterion(logits, target)
    if loss.shape not in ((), (len(logits),)):
        raise ShapeError(
            got=f"a criterion that returns shape {tuple(loss.shape)}",
            needed="a scalar or (N,)",
            fix="reduce the other axes in the criterion",
        )
    return loss.mean()


def _reduce(values: Tensor, batch: Batch, name: str, reduction: Reduction) -> Tensor:
    """The mean over the batch: linear, so that accumulated and distributed batches add up to one large batch."""
    n = len(batch.x)
    if values.shape != (n,):
        raise ShapeError(
            got=f"penalty {name!r} of shape {tuple(values.shape)}",
            needed=f"one value an image, ({n},)",
            fix="let its forward average over the other axes",
        )
    counted = torch.where(batch.annotated, values, 0)
    return counted.sum() / (n if reduction == "batch" else batch.annotated.sum().clamp(min=1))
