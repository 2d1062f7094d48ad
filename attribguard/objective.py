"""From a checked batch to the loss: one step, its terms, their weighted sum."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attribguard.batch import Batch
from attribguard.corrupted_pass import Comparison, CorruptedReads
from attribguard.criterion import Criterion
from attribguard.errors import ShapeError
from attribguard.network import Network
from attribguard.plan import Plan, Reduction, Terms
from attribguard.processes import in_process_group
from attribguard.step import Step
from attribguard.trace import Trace

__all__ = ["GuardOutput", "Prediction", "objective"]


class GuardOutput(NamedTuple):
    """What a guarded call gives.

    Attributes:
        loss: scalar, to call ``backward`` on: the criterion and the terms, weighed and summed.
        logits: (N, K), with their graph.
        terms: name to unweighted, detached scalar; the classification loss is ``"criterion"``.
        weights: name to the weight that was in force: a float, or with a ``weighting`` a detached scalar.
        predictions: name to a head's output, with its graph.
    """

    loss: Tensor
    logits: Tensor
    terms: dict[str, Tensor]
    weights: dict[str, float] | dict[str, Tensor]
    predictions: dict[str, Tensor]


class Prediction(NamedTuple):
    """What :meth:`attribguard.Guard.predict` gives.

    Attributes:
        logits: (N, K), the model's.
        predictions: name to a head's output.
    """

    logits: Tensor
    predictions: dict[str, Tensor]


def objective(network: Network, batch: Batch, terms: Terms, plan: Plan) -> GuardOutput:
    """Run one step and put its terms together.

    Args:
        network: the wrapped model, with the hooks for all layers installed.
        batch: the checked batch.
        terms: what the loss is made of.
        plan: what the step needs.

    Returns:
        The output of the guarded call.

    Raises:
        ShapeError: if the criterion, a penalty or a head's loss returns another shape than it should.
    """
    reads = [CorruptedReads(*asked, _comparisons(terms, plan, i)) for i, asked in enumerate(plan.corruptions)]
    step = Step(network, plan.tails, batch, plan.points, reads, plan.differentiated, plan.twice, terms.gradients)
    values: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    predictions: dict[str, Tensor] = {}
    if terms.criterion is not None:
        values["criterion"] = _classify(terms.criterion, step.logits, batch.target)
        weights["criterion"] = terms.criterion_weight
    for head in terms.heads:
        drawn = head(step.maps(head.points), (batch.x.shape[-2], batch.x.shape[-1]))
        predictions[head.name] = drawn
        with _full_precision(batch):
            drawn = drawn.to(torch.promote_types(drawn.dtype, torch.float32))
            corrupted = step.corrupted_images(plan.passes[head.name]) if head.needs_corrupted else None
            term = head.loss(drawn, batch, corrupted)
            values[head.name] = _reduce(term, head.rows(batch), f"head {head.name!r}", terms.reduction)
        weights[head.name] = head.weight
    weights |= {penalty.name: penalty.weight for penalty in terms.penalties}
    # Those that compare two passes come last: the later a pass, the earlier autograd goes back through it, and its
    # graph is gone before inner gradients are differentiated.
    waiting = sorted(terms.penalties, key=lambda penalty: penalty.corruption is not None)
    while waiting:
        penalty = waiting.pop(0)
        later = {point for other in waiting for point in plan.layers[other.name]}
        view = Trace(
            step,
            penalty.name,
            plan.layers[penalty.name],
            penalty.corruption,
            plan.passes[penalty.name],
            penalty.needs_layer_gradient,
            penalty.compare is not None,
            later,
        )
        with _full_precision(batch):
            values[penalty.name] = _reduce(penalty(view), batch.annotated, f"penalty {penalty.name!r}", terms.reduction)
        step.keep_only(later, {plan.passes[other.name] for other in waiting})
    values = {name: values[name] for name in weights}
    step.finish()
    detached = {name: value.detach() for name, value in values.items()}
    in_force: dict[str, float] | dict[str, Tensor] = weights
    if terms.weighting is None:
        loss = functools.reduce(torch.add, [weights[name] * value for name, value in values.items()])
    else:
        shared = [] if plan.shared is None else [network.parameter(plan.shared)]
        loss, in_force = terms.weighting(values, weights, shared)
    if terms.criterion is None and in_process_group():
        # DistributedDataParallel waits for the gradient of every parameter; this one is 0 even where logits are not
        # finite.
        loss = loss + torch.where(torch.zeros_like(step.logits, dtype=torch.bool), step.logits, 0).sum()
    return GuardOutput(loss, step.logits, detached, in_force, predictions)


def _comparisons(terms: Terms, plan: Plan, index: int) -> dict[str, tuple[tuple[str, ...], Comparison]]:
    """Penalty to the places at which it compares the main pass with this corrupted one, and how."""
    readers = (penalty for penalty in terms.penalties if plan.passes[penalty.name] == index)
    return {p.name: (plan.layers[p.name], p.compare) for p in readers if p.compare is not None}


def _full_precision(batch: Batch) -> torch.autocast:
    # Squares underflow in half precision; features come as float32 already.
    return torch.autocast(batch.x.device.type, enabled=False)


def _classify(criterion: Criterion, logits: Tensor, target: Any) -> Tensor:
    loss = criterion(logits, target)
    if not isinstance(loss, Tensor) or loss.shape not in ((), (len(logits),)):
        raise ShapeError(
            got=f"a criterion that returns {tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__}",
            needed="a scalar or (N,)",
            fix="reduce the other axes in the criterion",
        )
    return loss.mean()


def _reduce(values: Tensor, rows: Tensor, what: str, reduction: Reduction) -> Tensor:
    """The mean over the batch: linear, so that accumulated and distributed batches add up to one large batch."""
    n = len(rows)
    if values.shape != (n,):
        raise ShapeError(
            got=f"{what} of shape {tuple(values.shape)}",
            needed=f"one value an image, ({n},)",
            fix="let it average over the other axes",
        )
    counted = torch.where(rows, values, 0)
    return counted.sum() / (n if reduction == "batch" else rows.sum().clamp(min=1))
