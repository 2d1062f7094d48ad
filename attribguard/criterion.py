"""The classification loss: the usual one where the target's type says which, otherwise the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError

__all__ = ["Criterion", "check_target", "classification_loss"]

Criterion = Callable[[Tensor, Any], Tensor]


def check_target(target: Any, n: int, logits: torch.Size, *, values: bool) -> None:
    """Check that the default criterion applies: integer classes (N,), or (N,) or (N, 1) with one output.

    Args:
        target: the target.
        n: the number of images.
        logits: the shape of one image's logits.
        values: whether to look at the values.

    Raises:
        TypeMismatchError: for float targets with several outputs, which need an explicit criterion.
        ShapeError: if the target's or the logits' shape fits neither form.
        RangeError: if a class index or label is out of range.
    """
    if not isinstance(target, Tensor):
        raise TypeMismatchError(got=f"a target of {type(target).__name__}", needed="a tensor", fix="pass a criterion")
    if len(logits) > 1:
        raise ShapeError(
            got=f"logits of shape (N, {', '.join(map(str, logits))})",
            needed="(N, K) for the default criterion",
            fix="pass `criterion=`, or pick the class logits with `output=`",
        )
    outputs = logits[0] if logits else 1
    if outputs >= 2 and (target.is_floating_point() or target.dim() != 1):
        raise TypeMismatchError(
            got=f"a target of {target.dtype} and shape {tuple(target.shape)} for {outputs} outputs",
            needed=f"integer classes of shape ({n},) for the default cross entropy",
            fix="use target.squeeze(1) for (N, 1); pass `criterion=` for mixed or multi-label targets, such as "
            "torch.nn.BCEWithLogitsLoss()",
        )
    if tuple(target.shape) not in ([(n,)] if outputs >= 2 else [(n,), (n, 1)]):
        raise ShapeError(
            got=f"a target of shape {tuple(target.shape)} for {n} images and {outputs} outputs",
            needed=f"({n},)" if outputs >= 2 else f"({n},) or ({n}, 1)",
            fix="give one target an image",
        )
    highest = outputs - 1 if outputs >= 2 else 1
    if values and not bool(((target >= 0) & (target <= highest)).all()):
        raise RangeError(
            got=f"targets from {target.min().item()} to {target.max().item()}",
            needed=f"0 to {highest} for {outputs} outputs",
            fix="check the labels and the number of outputs",
        )


def classification_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy for two or more outputs, binary cross entropy with logits for one; the mean over the batch.

    Args:
        logits: (N, K), or (N,) for one output.
        target: (N,) class indices, or (N,) or (N, 1) labels in [0, 1] for one output.
    """
    if logits.dim() == 2 and logits.shape[1] >= 2:
        # Integer types other than int64 are not accepted everywhere.
        return F.cross_entropy(logits, target.long())
    return F.binary_cross_entropy_with_logits(logits.flatten(), target.flatten().to(logits.dtype))
