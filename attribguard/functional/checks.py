"""What the losses take: labels of 0 and 1, counts of them, and numbers within a range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError

__all__ = [
    "Counts",
    "as_counts",
    "as_labels",
    "check_beta",
    "check_focusing",
    "check_number",
    "counts_for",
    "is_whole",
    "logits_and_labels",
]

Counts = Tensor | Sequence[float] | float


def is_whole(value: object, least: int | None = None, most: int | None = None) -> bool:
    """Whether something is an integer of Python's within a range; ``True`` and ``False`` are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return (least is None or value >= least) and (most is None or value <= most)


def check_number(name: str, value: float, needed: str, fits: Callable[[float], bool]) -> None:
    """Refuse what is not a finite number that fits, saying what was needed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeMismatchError(got=f"{name}={value!r}", needed="a number", fix="pass a float")
    # Not math.isfinite: a compiled graph may hold the number as a symbol, which can only be compared.
    if not (-math.inf < value < math.inf and fits(value)):
        raise RangeError(got=f"{name}={value}", needed=f"a finite number, {needed}", fix="choose one in this range")


def check_focusing(gamma: float, alpha: float | None = None) -> None:
    """Refuse a negative gamma, and an alpha that leaves one side of the labels without weight."""
    check_number("gamma", gamma, "0 or more", lambda value: value >= 0)
    if alpha is not None:
        check_number("alpha", alpha, "above 0 and below 1", lambda value: 0 < value < 1)


def check_beta(beta: float) -> None:
    """Refuse a beta for which the effective number of samples is not defined."""
    check_number("beta", beta, "0 or more and below 1", lambda value: 0 <= value < 1)


def as_labels(targets: Tensor, *, validate: bool) -> Tensor:
    """Check labels of any shape and return them.

    Args:
        targets: bool, integers or floats of 0 and 1.
        validate: whether to look at the values, for which an accelerator has to be waited for.

    Returns:
        The same tensor.

    Raises:
        TypeMismatchError: if they are no tensor of real numbers.
        RangeError: if one is neither 0 nor 1.
    """
    if not isinstance(targets, Tensor) or targets.is_complex():
        kind = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeMismatchError(got=f"targets of {kind}", needed="a tensor of 0 and 1", fix="use torch.as_tensor")
    # A compiled graph cannot branch on a value.
    if validate and not torch.compiler.is_compiling():
        wrong = targets[(targets != 0) & (targets != 1)]
        if wrong.numel():
            raise RangeError(
                got=f"targets with the value {wrong.flatten()[0].item():g}",
                needed="labels of 0 and 1",
                fix="turn class indices into one_hot labels; leave out soft, uncertain (-1) and missing (nan) ones",
            )
    return targets


def logits_and_labels(logits: Tensor, targets: Tensor, *, validate: bool) -> tuple[Tensor, Tensor]:
    """Check logits with their labels and put both into one floating type and shape.

    Args:
        logits: (N, K) or (N,), floating.
        targets: 0 and 1 in the same shape; for a single output also (N,) with (N, 1) logits and the reverse.
        validate: whether to look at the targets' values.

    Returns:
        Both in the logits' shape, float32 or float64.

    Raises:
        TypeMismatchError: if a type does not fit, or the devices differ.
        ShapeError: if a shape does not fit.
        RangeError: if a target is neither 0 nor 1.
    """
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeMismatchError(got=f"logits of {kind}", needed="a floating-point tensor", fix="pass the raw outputs")
    as_labels(targets, validate=False)
    shape, given = tuple(logits.shape), tuple(targets.shape)
    if len(shape) not in (1, 2) or logits.numel() == 0:
        raise ShapeError(
            got=f"logits of shape {shape}",
            needed="(N, K) or (N,), not empty",
            fix="one logit for each image and label; leave out empty batches",
        )
    if len(shape) == 2 and shape[1] > 1 and given == shape[:1]:
        raise ShapeError(
            got=f"logits of shape {shape} with one target an image, {given}, as for exclusive classes",
            needed="one label of 0 or 1 for each logit",
            fix="for two classes give one logit, logits[:, 1] - logits[:, 0] (in wrap: output=lambda z: "
            "z[:, 1] - z[:, 0]); for more use cross entropy, or one_hot targets for one class against the rest",
        )
    if given != shape and not (logits.numel() == shape[0] and given in (shape[:1], (shape[0], 1))):
        raise ShapeError(
            got=f"targets of shape {given} for logits of shape {shape}",
            needed=f"{shape}",
            fix="give one label for each logit",
        )
    if targets.device != logits.device:
        raise TypeMismatchError(
            got=f"targets on {targets.device} and logits on {logits.device}", needed="one device", fix="move them there"
        )
    as_labels(targets, validate=validate)
    # Half-precision logits are too coarse for a logarithm and its derivatives.
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return z, targets.reshape(shape).to(z.dtype)


def as_counts(positive: Counts, negative: Counts, *, lowest: int, validate: bool) -> tuple[Tensor, Tensor]:
    """Check counts of positives and negatives.

    Args:
        positive: (K,) whole numbers, one a class; a number for binary labels.
        negative: of the same shape.
        lowest: the lowest count that is allowed.
        validate: whether to look at the values.

    Returns:
        Both as int64 tensors: ``module.half()``, which would overflow them, leaves integers alone.

    Raises:
        TypeMismatchError: if they are no numbers.
        ShapeError: if they are not of one length.
        RangeError: if a count is no whole number, or below the lowest.
    """
    try:
        pair = {"positive": torch.as_tensor(positive), "negative": torch.as_tensor(negative)}
    except (TypeError, ValueError, RuntimeError) as error:
        got = f"counts {positive!r} and {negative!r}"
        raise TypeMismatchError(got=got, needed="numbers", fix="pass one number a class") from error
    shapes = [tuple(counts.shape) for counts in pair.values()]
    if shapes[0] != shapes[1] or len(shapes[0]) > 1 or shapes[0] == (0,):
        raise ShapeError(
            got=f"counts of shapes {shapes[0]} and {shapes[1]}",
            needed="(K,) for both, or two numbers for binary labels",
            fix="count positives and negatives over the images, or use from_targets(targets)",
        )
    for side, counts in pair.items() if validate else ():
        # Written so that NaN fails it.
        fits = ((counts >= lowest) & (counts == counts.long())).flatten()
        if not bool(fits.all()):
            first = int((~fits).nonzero()[0])
            raise RangeError(
                got=f"{counts.flatten()[first].item():g} {side}s of class {first}",
                needed=f"a whole number of {lowest} or more",
                fix="check the counts; a class without positives or without negatives cannot be balanced: leave it out",
            )
    return pair["positive"].long(), pair["negative"].long()


def counts_for(
    logits: Tensor, positive: Counts, negative: Counts, *, lowest: int, validate: bool
) -> tuple[Tensor, Tensor]:
    """As :func:`as_counts`, in the type of these logits (N, K) or (N,) and in the shape of one row.

    Raises:
        ShapeError: also if there is not one count for each label.
    """
    looks = validate and not torch.compiler.is_compiling()
    pair = as_counts(positive, negative, lowest=lowest, validate=looks)
    labels = logits[0].numel()
    if pair[0].numel() != labels:
        raise ShapeError(
            got=f"{pair[0].numel()} counts for logits of shape {tuple(logits.shape)}",
            needed=f"{labels}, one for each label",
            fix="count the same labels that the network gives out",
        )
    n_positive, n_negative = (counts.reshape(logits.shape[1:]).to(logits) for counts in pair)
    return n_positive, n_negative
