"""A trained network, as it is looked at: the model behind its wrappers, and the classes that are asked about."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.functional.scores import as_matrix
from attribguard.guard import Guard
from attribguard.network import without_wrappers

__all__ = ["Attributor", "chosen_classes", "model_behind"]


class Attributor(Protocol):
    """Any callable that draws heat maps: ``attributor(model, x, target) -> (N, H, W)``."""

    def __call__(self, model: nn.Module, x: Tensor, target: Tensor | None = None, /) -> Tensor:
        """Draw.

        Args:
            model: images to logits.
            x: (N, C, H, W).
            target: (N,) class indices; ``None``: the predicted ones.
        """


def model_behind(model: nn.Module) -> nn.Module:
    """The network itself, behind a guard, ``torch.compile`` and data-parallel wrappers: hooks on these never fire.

    Args:
        model: the network, or something around it.

    Raises:
        TypeMismatchError: if it is no module.
    """
    model = without_wrappers(model)
    while isinstance(model, Guard):
        model = without_wrappers(model.model)
    if not isinstance(model, nn.Module):
        raise TypeMismatchError(got=f"a model of {type(model).__name__}", needed="a torch.nn.Module", fix="build it")
    return model


def chosen_classes(logits: Tensor, target: Tensor | int | None) -> Tensor:
    """The class that each image is asked about.

    Args:
        logits: (N, K), or (N,) for one output.
        target: (N,) class indices, one for all, or ``None`` for the predicted; with one output 1 asks for what speaks
            for it and 0 for what speaks against it.

    Returns:
        (N,) int64.

    Raises:
        ShapeError: if there is not one class an image.
        TypeMismatchError: if they are no integers.
        RangeError: if one is out of range.
    """
    z = as_matrix(logits.detach())
    if target is None:
        return z.argmax(1) if z.shape[1] > 1 else (z[:, 0] >= 0).long()
    classes = torch.as_tensor(target, device=z.device)
    if classes.dtype == torch.bool or classes.is_floating_point() or classes.is_complex():
        raise TypeMismatchError(got=f"a target of {classes.dtype}", needed="class indices", fix="use .long()")
    if classes.dim() == 0:
        classes = classes.expand(len(z))
    if classes.shape != (len(z),):
        raise ShapeError(
            got=f"a target of shape {tuple(classes.shape)} for {len(z)} images",
            needed=f"({len(z)},), or one class for all",
            fix="ask about one class an image at a time",
        )
    highest = max(z.shape[1], 2) - 1
    if not bool(((classes >= 0) & (classes <= highest)).all()):
        raise RangeError(
            got=f"classes from {classes.min().item()} to {classes.max().item()}",
            needed=f"0 to {highest} for {z.shape[1]} output(s)",
            fix="check the labels",
        )
    return classes.long()
