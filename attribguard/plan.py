"""What a step consists of: its terms, and the places and passes that they need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from attribguard.compiling import refusal
from attribguard.corruption import Corruption
from attribguard.criterion import Criterion
from attribguard.heads.base import Head
from attribguard.layers import LAST, resolve_layers
from attribguard.network import Network
from attribguard.penalties.base import Penalty
from attribguard.processes import check_differentiable_again
from attribguard.second_order import check_twice_differentiable
from attribguard.step import Gradients
from attribguard.tail import Tails, last_map
from attribguard.weighting import Weighting

__all__ = ["Plan", "Reduction", "Terms", "check_compilable", "make_plan", "needs_graph", "what_is_asked"]

Reduction = Literal["batch", "annotated"]


_refuse_input_gradients = refusal(
    got="a compiled guard with a penalty on input gradients",
    needed="a graph without a backward pass inside, which torch.compile cannot follow",
    fix="leave the guard uncompiled, or use penalties on features such as ActDiff",
)
_refuse_autograd = refusal(
    got="a compiled guard with gradients='autograd' and a penalty on a layer's gradient",
    needed="closed forms, for torch.compile cannot follow a backward pass inside",
    fix="leave `gradients` out, or the guard uncompiled",
)
_refuse_unseen_layers = refusal(
    got="a compiled guard that has not seen its layers yet",
    needed="one look at the network before it is compiled",
    fix="pass example_input to wrap, or make one guarded call before torch.compile",
)


class Terms(NamedTuple):
    """What the loss is made of.

    Attributes:
        criterion: ``(logits, target)`` to a scalar or (N,); ``None`` for no classification.
        criterion_weight: its weight.
        penalties: the penalties.
        heads: the heads.
        reduction: what a penalty's or head's sum is divided by.
        weighting: what adapts the weights; ``None`` for fixed ones.
        gradients: how inner gradients are taken.
    """

    criterion: Criterion | None
    criterion_weight: float
    penalties: Sequence[Penalty]
    heads: Sequence[Head]
    reduction: Reduction
    weighting: Weighting | None
    gradients: Gradients


class Plan(NamedTuple):
    """What a step needs; made once, so that a compiled step has nothing to look up.

    Attributes:
        asked: what the penalties and heads asked for when it was made.
        points: all places, to be recorded in the main pass.
        layers: penalty or head to the places it reads.
        corruptions: the corruptions, each with the places whose features are read in the pass over such images.
        passes: penalty or head to the corruption it reads; -1 for none.
        differentiated: the layers with respect to which logits are differentiated.
        twice: whether the input gradient is differentiated again.
        tails: what is known of the network's classifier.
        shared: the name of the last weight before the deepest map, if the weighting differentiates towards it.
    """

    asked: tuple[object, ...]
    points: tuple[str, ...]
    layers: dict[str, tuple[str, ...]]
    corruptions: list[tuple[Corruption, tuple[str, ...]]]
    passes: dict[str, int]
    differentiated: tuple[str, ...]
    twice: bool
    tails: Tails
    shared: str | None


def what_is_asked(terms: Terms) -> tuple[object, ...]:
    """What a plan depends on, to notice when a penalty or head was changed or added.

    Args:
        terms: the guard's terms as they are now.
    """
    asked = [
        (p.name, p.layers, p.corruption, p.compare is None, p.needs_input_gradient, p.needs_layer_gradient)
        for p in terms.penalties
    ]
    return *asked, *((head.name, head.points, head.needs_corrupted, head.corruption) for head in terms.heads)


def needs_graph(penalties: Sequence[Penalty]) -> bool:
    """Whether a gradient is taken inside a step, which needs a graph even where the caller wants none of the result.

    Args:
        penalties: of the guard.
    """
    return any(penalty.needs_input_gradient or penalty.needs_layer_gradient for penalty in penalties)


def check_compilable(terms: Terms, plan: Plan | None) -> None:
    """Refuse a step that ``torch.compile`` cannot follow.

    Args:
        terms: what the loss is made of.
        plan: what the step needs, if that is known yet.

    Raises:
        ModelError: if a penalty needs a backward pass inside, or the network was not looked at before.
    """
    if any(penalty.needs_input_gradient for penalty in terms.penalties):
        _refuse_input_gradients()
    if terms.gradients == "autograd" and any(penalty.needs_layer_gradient for penalty in terms.penalties):
        _refuse_autograd()
    if plan is None:
        _refuse_unseen_layers()


def make_plan(terms: Terms, network: Network, x: Tensor) -> Plan:
    """Find each term's places, and let equal corruptions share one pass.

    Args:
        terms: what the loss is made of; its heads are attached.
        network: the wrapped model.
        x: (N, C, H, W), images to try it on.

    Raises:
        LayerError: if a penalty's layers cannot be had.
        ModelError: if a penalty needs a second derivative that the network does not have.
    """
    penalties, heads = terms.penalties, terms.heads
    layers: dict[str, tuple[str, ...]] = {}
    for penalty in penalties:
        if penalty.layers == LAST:
            layers[penalty.name] = (last_map(network, x),)
        else:
            layers[penalty.name] = resolve_layers(penalty.layers, network.look(x))
    whole = {penalty.name: layers[penalty.name] for penalty in penalties if penalty.compare is None}
    wanted = {penalty.name: penalty.corruption for penalty in penalties}
    usual = next((penalty.corruption for penalty in penalties if penalty.corruption is not None), Corruption())
    wanted |= {head.name: (head.corruption or usual) if head.needs_corrupted else None for head in heads}
    shared: dict[Corruption, tuple[str, ...]] = {}
    for name, corruption in wanted.items():
        if corruption is not None:
            shared[corruption] = _union(shared.get(corruption, ()), whole.get(name, ()))
    order = {None: -1} | {corruption: i for i, corruption in enumerate(shared)}
    layers |= {head.name: head.points for head in heads}
    twice = any(penalty.needs_input_gradient for penalty in penalties)
    adapts = terms.weighting is not None and terms.weighting.needs_shared
    if twice:
        check_differentiable_again(network.model)
        check_twice_differentiable(network.model, network.select, x)
    return Plan(
        asked=what_is_asked(terms),
        points=_union(*layers.values()),
        layers=layers,
        corruptions=list(shared.items()),
        passes={name: order[corruption] for name, corruption in wanted.items()},
        differentiated=_union(*(layers[penalty.name] for penalty in penalties if penalty.needs_layer_gradient)),
        twice=twice,
        tails=Tails(network),
        shared=_last_shared(heads, network, x) if adapts else None,
    )


def _union(*points: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(point for some in points for point in some))


def _last_shared(heads: Sequence[Head], network: Network, x: Tensor) -> str | None:
    """The last weight matrix or kernel before the deepest map: where the tasks part ways."""
    end = heads[0].points[-1] if heads else last_map(network, x)
    last = None
    for point in network.look(x).points:
        module = point.partition(":")[0].partition("#")[0]
        for name, parameter in network.model.get_submodule(module).named_parameters(module, recurse=False):
            if parameter.dim() >= 2 and parameter.requires_grad and not point.endswith(":input"):
                last = name
        if point == end:
            break
    return last
