"""From a checked batch to the loss: one step, its terms, their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from attribguard.corruption import Corruption
from attribguard.criterion import Criterion
from attribguard.errors import ShapeError
from attribguard.layers import LAST, resolve_layers
from attribguard.network import Network
from attribguard.penalties.base import Penalty
from attribguard.second_order import check_twice_differentiable
from attribguard.step import Batch, Step
from attribguard.tail import Tails, last_map
from attribguard.trace import Trace

__all__ = ["GuardOutput", "Plan", "Reduction", "make_plan", "objective", "what_is_asked"]

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
        asked: what the penalties asked for when it was made.
        points: all places, to be recorded in the main pass.
        layers: penalty to the places it reads.
        corruptions: the corrupted passes to run, each with the places to record there.
        passes: penalty to the corrupted pass it reads; -1 for none.
        differentiated: the layers with respect to which logits are differentiated.
        twice: whether the input gradient is differentiated again.
        tails: what is known of the network's classifier.
    """

    asked: tuple[object, ...]
    points: tuple[str, ...]
    layers: dict[str, tuple[str, ...]]
    corruptions: list[tuple[Corruption, tuple[str, ...]]]
    passes: dict[str, int]
    differentiated: tuple[str, ...]
    twice: bool
    tails: Tails


def what_is_asked(penalties: Sequence[Penalty]) -> tuple[object, ...]:
    """What a plan depends on, to notice when a penalty was changed or added.

    Args:
        penalties: the guard's penalties as they are now.
    """
    return tuple((p.name, p.layers, p.corruption, p.needs_input_gradient, p.needs_layer_gradient) for p in penalties)


def make_plan(penalties: Sequence[Penalty], network: Network, x: Tensor) -> Plan:
    """Find each penalty's places, and let equal corruptions share one pass.

    Args:
        penalties: the penalties.
        network: the wrapped model.
        x: (N, C, H, W), images to try it on.

    Raises:
        LayerError: if a penalty's layers cannot be had.
        ModelError: if a penalty needs a second derivative that the network does not have.
    """
    layers: dict[str, tuple[str, ...]] = {}
    for penalty in penalties:
        if penalty.layers == LAST:
            layers[penalty.name] = (last_map(network, x),)
        else:
            layers[penalty.name] = resolve_layers(penalty.layers, network.look(x))
    shared: dict[Corruption, tuple[str, ...]] = {}
    for penalty in penalties:
        if penalty.corruption is not None:
            shared[penalty.corruption] = _union(shared.get(penalty.corruption, ()), layers[penalty.name])
    order = {None: -1} | {corruption: i for i, corruption in enumerate(shared)}
    passes = {penalty.name: order[penalty.corruption] for penalty in penalties}
    differentiated = _union(*(layers[penalty.name] for penalty in penalties if penalty.needs_layer_gradient))
    twice = any(penalty.needs_input_gradient for penalty in penalties)
    if twice:
        check_twice_differentiable(network.model, network.select, x)
    points, corruptions = _union(*layers.values()), list(shared.items())
    return Plan(what_is_asked(penalties), points, layers, corruptions, passes, differentiated, twice, Tails(network))


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
    step = Step(network, plan.tails, batch, plan.points, plan.corruptions, plan.differentiated, plan.twice)
    loss = _classify(criterion, step.logits, batch.target)
    terms, weights = {"criterion": loss.detach()}, {"criterion": criterion_weight}
    total = criterion_weight * loss
    for penalty in penalties:
        # Squares underflow in half precision; features come as float32 already.
        with torch.autocast(batch.x.device.type, enabled=False):
            term = _reduce(penalty(_view(step, plan, penalty)), batch, penalty.name, reduction)
        total = total + penalty.weight * term
        terms[penalty.name], weights[penalty.name] = term.detach(), penalty.weight
    return GuardOutput(total, step.logits, terms, weights, {})


def _view(step: Step, plan: Plan, penalty: Penalty) -> Trace:
    name = penalty.name
    return Trace(step, plan.layers[name], penalty.corruption, plan.passes[name], penalty.needs_layer_gradient)


def _union(*points: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(point for some in points for point in some))


def _classify(criterion: Criterion, logits: Tensor, target: Any) -> Tensor:
    loss = criterion(logits, target)
    if not isinstance(loss, Tensor) or loss.shape not in ((), (len(logits),)):
        raise ShapeError(
            got=f"a criterion that returns {tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__}",
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
