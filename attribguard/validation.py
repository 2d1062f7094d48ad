"""Check a batch before anything is computed: one clear error, nothing changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attribguard.batch import Batch
from attribguard.criterion import check_target, classification_loss
from attribguard.errors import ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.masks import inside
from attribguard.network import Network
from attribguard.plan import Terms

__all__ = ["Annotated", "check_batch", "check_channels", "check_step", "check_wrapped", "warn_of_empty_masks"]

Annotated = Tensor | Mapping[str, Tensor] | None
_KINDS = ("mask", "segmentation")
# Interpolation overshoots by this much.
_ROUNDING = 1e-6


def check_step(
    terms: Terms,
    network: Network,
    x: Tensor,
    target: Any,
    mask: Tensor | None,
    annotated: Annotated,
    segmentation: Tensor | None,
    *,
    values: bool,
) -> Batch:
    """Check all that a step is given, against what its terms and its network take.

    Args:
        terms: what the loss is made of.
        network: the wrapped model.
        x: as in :func:`check_batch`, like what follows.
        target: the target.
        mask: the mask.
        annotated: which rows count.
        segmentation: the segmentation.
        values: whether to look at values.

    Returns:
        The batch.

    Raises:
        AttribGuardError: one for each kind of bad input.
    """
    batch = check_batch(x, target, mask, annotated, segmentation, values=values)
    if terms.heads:
        check_channels(x, network)
    for head in terms.heads:
        head.check(batch, values=values)
    if terms.criterion is classification_loss:
        check_target(target, len(x), network.look(x).logits, values=values)
    return batch


def check_batch(
    x: Tensor,
    target: Any,
    mask: Tensor | None,
    annotated: Annotated,
    segmentation: Tensor | None,
    *,
    values: bool,
) -> Batch:
    """Check images and annotations and put them into one form.

    Args:
        x: (N, C, H, W) floating.
        target: passed on.
        mask: (N, 1, H, W) or (N, H, W), in [0, 1], or ``None``: nobody is annotated.
        annotated: (N,) bool, a mapping with ``"mask"`` and ``"segmentation"``, or ``None``: all that is given counts.
        segmentation: (N, H, W) integers, or ``None``.
        values: whether to look at the mask's values, for which an accelerator has to be waited for.

    Returns:
        The batch; rows whose mask does not count have a mask of ones.

    Raises:
        ShapeError: if a shape does not fit the images.
        TypeMismatchError: if a type does not fit.
        RangeError: if the mask leaves [0, 1] or is NaN on a row that counts.
    """
    _check_images(x)
    n, _, height, width = x.shape
    counts = _check_annotated(annotated, x, given={"mask": mask is not None, "segmentation": segmentation is not None})
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if mask is None:
        checked = torch.ones(n, 1, height, width, device=x.device, dtype=dtype)
    else:
        _check_tensor("mask", mask, x, [(n, 1, height, width), (n, height, width)])
        if mask.is_complex():
            raise TypeMismatchError(got=f"a mask of {mask.dtype}", needed="float, bool or integer", fix="convert it")
        counted = counts["mask"].view(n, 1, 1, 1)
        # Replaced before any arithmetic: 0 * nan is nan.
        checked = torch.where(counted, mask.detach().view(n, 1, height, width), 1).to(dtype)
        # Written so that NaN fails it.
        if values and not bool(((checked >= -_ROUNDING) & (checked <= 1 + _ROUNDING)).all()):
            low, high = checked.min().item(), checked.max().item()
            raise RangeError(
                got=f"a mask with values from {low:.9g} to {high:.9g} on annotated rows",
                needed="values in [0, 1], 1 = relevant, and no NaN",
                fix="divide a mask of 0 and 255 by 255, and mark rows without a mask in `annotated`",
            )
        checked = checked.clamp(0, 1)
    if segmentation is not None:
        _check_tensor("segmentation", segmentation, x, [(n, height, width)])
        if segmentation.is_floating_point() or segmentation.is_complex() or segmentation.dtype == torch.bool:
            raise TypeMismatchError(
                got=f"a segmentation of {segmentation.dtype}", needed="integer class indices", fix="use .long()"
            )
    return Batch(x, target, checked, counts["mask"], segmentation, counts["segmentation"])


def check_wrapped(network: Network) -> None:
    """Refuse a guard whose hooks are off its model.

    Args:
        network: the wrapped model.

    Raises:
        ModelError: after ``unwrap()``.
    """
    if not network.capture.installed:
        raise ModelError(got="a guarded call after unwrap()", needed="a guard", fix="wrap the model again")


def check_channels(x: Tensor, network: Network) -> None:
    """Refuse images of another number of channels than the heads were made for.

    Args:
        x: (N, C, H, W).
        network: the wrapped model.

    Raises:
        ShapeError: if they differ, or these are no images.
        TypeMismatchError: if these are no floating-point tensor.
    """
    _check_images(x)
    channels = network.look(x).shapes[":input"][1]
    if x.shape[1] != channels:
        raise ShapeError(
            got=f"images of {x.shape[1]} channel(s) in a guard whose heads were made for {channels}",
            needed=f"{channels} channel(s)",
            fix="convert the images, or wrap the model with another example_input",
        )


def warn_of_empty_masks(batch: Batch) -> bool:
    """Warn of a mask that is empty on an annotated row, and say whether there was one.

    Args:
        batch: the checked batch.
    """
    empty = bool((batch.annotated & ~inside(batch.mask).flatten(1).any(1)).any())
    if empty:
        warnings.warn(
            "a mask is empty on an annotated row, so that all of its image counts as irrelevant; if it means "
            "'no mask', mark the row False in `annotated`",
            stacklevel=8,
        )
    return empty


def _check_images(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeMismatchError(got=f"images of {kind}", needed="a floating-point tensor", fix="convert and scale them")
    if x.dim() != 4 or x.numel() == 0:
        raise ShapeError(
            got=f"images of shape {tuple(x.shape)}",
            needed="(N, C, H, W) with at least one image",
            fix="add the batch axis, leave out empty batches; volumes and videos are not supported",
        )


def _check_tensor(what: str, tensor: Tensor, x: Tensor, shapes: list[tuple[int, ...]]) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeMismatchError(got=f"{what} as {type(tensor).__name__}", needed="a tensor", fix="use torch.as_tensor")
    if tuple(tensor.shape) not in shapes:
        raise ShapeError(
            got=f"{what} of shape {tuple(tensor.shape)} for images of shape {tuple(x.shape)}",
            needed=" or ".join(map(str, shapes)),
            fix="give one row an image, of the image's height and width",
        )
    if tensor.device != x.device:
        raise TypeMismatchError(
            got=f"{what} on {tensor.device} and images on {x.device}", needed="one device", fix=f"move {what} there"
        )


def _check_annotated(annotated: Annotated, x: Tensor, given: dict[str, bool]) -> dict[str, Tensor]:
    """For each kind of annotation the rows that count, (N,) bool."""
    n = len(x)
    named = dict(annotated) if isinstance(annotated, Mapping) else dict.fromkeys(_KINDS, annotated)
    if annotated is not None and not (set(named) <= set(_KINDS)):
        raise RangeError(got=f"annotated with keys {sorted(named)}", needed=f"keys among {_KINDS}", fix="rename them")
    if annotated is not None and not any(given[kind] for kind in named):
        raise ShapeError(
            got=f"annotated for {sorted(named)} without any such annotation",
            needed="the mask or segmentation that it is about",
            fix="pass it too, or leave `annotated` out",
        )
    counts = {}
    for kind in _KINDS:
        rows = named.get(kind)
        if rows is None:
            counts[kind] = torch.full((n,), given[kind], device=x.device)
            continue
        _check_tensor("annotated", rows, x, [(n,)])
        if rows.dtype != torch.bool:
            raise TypeMismatchError(got=f"annotated of {rows.dtype}", needed="a bool tensor (N,)", fix="use .bool()")
        counts[kind] = rows if given[kind] else torch.zeros_like(rows)
    return counts
