"""The loss of a segmentation: cross entropy and Dice."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError, check_choice
from attribguard.functional.checks import check_number

__all__ = ["OVER", "Over", "check_classes", "check_settings", "dice_ce"]

Over = Literal["sample", "batch"]
OVER: tuple[Over, ...] = ("sample", "batch")


def dice_ce(
    logits: Tensor,
    target: Tensor,
    *,
    ce: float = 0.4,
    dice: float = 0.6,
    over: Over = "sample",
    squared: bool = False,
    ignore_index: int = -100,
    smooth: float = 1e-5,
    validate: bool = True,
) -> Tensor:
    r"""Cross entropy and Dice of a segmentation, per sample (Hirata and Okita, Eqs. 1 to 3).

    .. math::
        \lambda_\mathrm{ce} \frac{1}{|P|} \sum_{i \in P} -\log q_{i, t_i} + \lambda_\mathrm{dice} \frac{1}{K}
        \sum_{k=1}^{K} \left( 1 - \frac{2 \sum_i p_{ik} q_{ik} + s}{\sum_i (p_{ik} + q_{ik}) + s} \right)

    with :math:`p` the target :math:`t` as 0 and 1, :math:`q` the softmax of the logits, :math:`P` the pixels that are
    not ignored and :math:`s` the smoothing. Departures: the cross entropy is the mean over an image's pixels and not
    the sum; the equation for Dice leaves the classes open, here it is the mean over all of them, the background's
    included, and smoothed. ``squared=True`` with ``over="batch"`` is what the Swin-Unet trainer computes.

    Args:
        logits: (N, K, H, W), floating; with K = 1 the sigmoid replaces the softmax and Dice is the foreground's.
        target: (N, H, W) integers from 0 to K - 1 (0 and 1 for K = 1), or ``ignore_index``.
        ce: weight of the cross entropy, 0 or more.
        dice: weight of Dice, 0 or more.
        over: ``"sample"`` takes Dice over each image, ``"batch"`` over the batch as a whole, where a class that is
            missing in one image has pixels in another. The batch's Dice then stands in every row, so that the mean
            over the rows is the loss.
        squared: whether the denominator is :math:`\sum_i (p_{ik}^2 + q_{ik}^2)`.
        ignore_index: marks the pixels that count neither in the cross entropy nor in Dice; their logits may be NaN.
        smooth: added to both sides of the fraction, above 0; a class that is neither there nor predicted costs 0.
        validate: whether to look at the target's values, for which an accelerator has to be waited for; a compiled
            graph never does.

    Returns:
        (N,), 0 or more, float32 (float64 for float64 logits); exactly 0 with zero gradient for an image all of whose
        pixels are ignored.

    Raises:
        ShapeError: if a shape does not fit.
        TypeMismatchError: if a type or device does not fit.
        RangeError: if a class is out of range, or an argument out of its range.

    Example:
        >>> dice_ce(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))  # 0.4 log 2 + 0.6 / 2
        tensor([0.5773])
    """
    check_settings(ce, dice, over, smooth)
    _check(logits, target)
    # Before any comparison: ignore_index may be a number that the target's own type cannot hold.
    labels = target.long()
    valid = labels != ignore_index
    if validate and not torch.compiler.is_compiling():
        check_classes(labels[valid], logits.shape[1])
    counted = valid[:, None]
    # Replaced before any arithmetic: 0 * nan is nan.
    z = logits.to(torch.promote_types(logits.dtype, torch.float32)).masked_fill(~counted, 0)
    outputs = z.shape[1]
    classes = torch.arange(outputs, device=z.device) if outputs > 1 else torch.ones(1, device=z.device)
    truth = (labels[:, None] == classes.view(-1, 1, 1)) & counted
    if outputs > 1:
        log_q = z.log_softmax(1)
        # Not F.cross_entropy, which has no deterministic form for images on CUDA.
        surprise = -torch.where(truth, log_q, 0).sum(1)
        q = log_q.exp()
    else:
        surprise = -F.logsigmoid(torch.where(truth, z, -z)).squeeze(1)
        q = z.sigmoid()
    pixels = valid.sum((1, 2))
    entropy = torch.where(valid, surprise, 0).sum((1, 2)) / pixels.clamp(min=1)
    lost = _dice(torch.where(counted, q, 0), truth, over, squared, smooth)
    return ce * entropy + dice * torch.where(pixels > 0, lost, 0)


def _dice(q: Tensor, truth: Tensor, over: Over, squared: bool, smooth: float) -> Tensor:
    """(N,) over each sample, (1,) over the batch; ignored pixels are 0 in both."""
    # 1 - (2 sum(pq) + s) / (sum(p + q) + s) is sum|p - q| / (sum(p + q) + s) for p of 0 and 1, and with squares alike.
    # In this form it cannot round below 0.
    error = torch.where(truth, 1 - q, q)
    if squared:
        error, q = error.square(), q.square()
    wrong, size = error.sum((2, 3)), q.sum((2, 3)) + truth.sum((2, 3))
    if over == "batch":
        wrong, size = wrong.sum(0, keepdim=True), size.sum(0, keepdim=True)
    return (wrong / (size + smooth)).mean(1)


def check_settings(ce: float, dice: float, over: Over, smooth: float) -> None:
    """Refuse weights, smoothing or a scope out of their range."""
    check_number("ce", ce, "0 or more", lambda value: value >= 0)
    check_number("dice", dice, "0 or more", lambda value: value >= 0)
    check_number("smooth", smooth, "above 0", lambda value: value > 0)
    check_choice("over", over, OVER)


def _check(logits: Tensor, target: Tensor) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeMismatchError(got=f"logits of {kind}", needed="a floating-point tensor", fix="pass the raw outputs")
    if not isinstance(target, Tensor) or _is_no_index(target):
        kind = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise TypeMismatchError(got=f"a target of {kind}", needed="integer class indices", fix="use .long()")
    if logits.dim() != 4 or logits.numel() == 0:
        raise ShapeError(
            got=f"logits of shape {tuple(logits.shape)}",
            needed="(N, K, H, W), not empty",
            fix="pass a map of logits for each class; leave out empty batches",
        )
    n, _, height, width = logits.shape
    if tuple(target.shape) != (n, height, width):
        raise ShapeError(
            got=f"a target of shape {tuple(target.shape)} for logits of shape {tuple(logits.shape)}",
            needed=f"({n}, {height}, {width})",
            fix="drop the channel axis with squeeze(1), or resize the logits with torch.nn.functional.interpolate",
        )
    if target.device != logits.device:
        raise TypeMismatchError(
            got=f"a target on {target.device} and logits on {logits.device}", needed="one device", fix="move it there"
        )


def _is_no_index(target: Tensor) -> bool:
    return target.is_floating_point() or target.is_complex() or target.dtype == torch.bool


def check_classes(labels: Tensor, outputs: int) -> None:
    """Refuse class indices that the logits have no channel for."""
    highest = max(outputs - 1, 1)
    if labels.numel() and not bool(((labels >= 0) & (labels <= highest)).all()):
        raise RangeError(
            got=f"classes from {labels.min().item()} to {labels.max().item()}",
            needed=f"0 to {highest} for {outputs} channel(s) of logits, or ignore_index",
            fix="check the labels, the number of channels and ignore_index",
        )
