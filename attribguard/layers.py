"""From the layers that a penalty asks for to the places in a network where they are recorded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

from torch import nn

from attribguard.errors import LayerError
from attribguard.survey import Survey

__all__ = ["AUTO", "LAST", "Layers", "check_layers", "resolve_layers"]

AUTO: Literal["auto"] = "auto"
LAST: Literal["last"] = "last"
Layers = str | tuple[str, ...]


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def check_layers(layers: Layers, model: nn.Module) -> None:
    """Refuse names that are no modules of the model.

    Args:
        layers: as a penalty has them.
        model: the network.

    Raises:
        LayerError: with the nearest names.
    """
    known = [name for name, _ in model.named_modules() if name]
    for layer in () if isinstance(layers, str) else layers:
        module = layer.partition(":")[0].partition("#")[0]
        if module in known or any(fnmatchcase(name, module) for name in known):
            continue
        nearest = difflib.get_close_matches(module, known, n=5, cutoff=0.0)
        raise LayerError(
            got=f"unknown layer {layer!r}",
            needed="the name of a module of the model, or a pattern that matches one",
            fix=f"the nearest names are {nearest}",
        )


def resolve_layers(layers: Layers, survey: Survey) -> tuple[str, ...]:
    """The places that a penalty's ``layers`` stand for, in the order in which they run.

    Args:
        layers: ``"auto"`` for what enters the network's activations; otherwise names or glob patterns of modules, which
            stand for what a module gives out. ``name#1`` is its second call, ``name:input`` what enters it.
        survey: of the network.

    Returns:
        Names of places.

    Raises:
        LayerError: if a layer never ran or gives no tensor, or the activations cannot be found.
    """
    if layers == AUTO:
        return _activations(survey)
    chosen: set[str] = set()
    for layer in layers:
        found = _matches(layer, survey.points)
        if not found:
            raise LayerError(
                got=f"layer {layer!r}, which never ran in a forward pass or gives no single tensor",
                needed="a layer that runs in every pass and gives a tensor",
                fix=f"the nearest that did are {difflib.get_close_matches(layer, survey.points, n=5, cutoff=0.0)}",
            )
        chosen.update(found)
    return tuple(point for point in survey.points if point in chosen)


def _matches(layer: str, points: Iterable[str]) -> list[str]:
    if not _is_pattern(layer):
        return [point for point in points if point == layer]
    wants_input = layer.endswith(":input")
    return [point for point in points if point.endswith(":input") == wants_input and fnmatchcase(point, layer)]


def _activations(survey: Survey) -> tuple[str, ...]:
    if survey.unplaced:
        raise LayerError(
            got=f'layers="auto" on a network with activations on tensors that no module gives: {survey.unplaced}',
            needed="activations that are modules, or that follow a module directly",
            fix="name the layers, or make each of these activations a module",
        )
    if not survey.activations:
        raise LayerError(
            got='layers="auto" on a network without activations (gates such as sigmoid and softmax do not count)',
            needed="at least one ReLU, GELU, SiLU, ... before the classifier's output",
            fix="name the layers",
        )
    return tuple(survey.activations)
