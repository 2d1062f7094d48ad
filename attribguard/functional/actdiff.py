"""The distance between two sets of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from attribguard.errors import ShapeError, check_choice
from attribguard.functional.norms import at_least_float32, safe_sqrt

__all__ = ["NORMS", "ActDiffNorm", "actdiff", "layer_difference", "mean_length"]

ActDiffNorm = Literal["rms", "l2", "rows"]
NORMS: tuple[ActDiffNorm, ...] = ("rms", "l2", "rows")

# What torch.nn.PairwiseDistance, which the published code calls, adds to every difference.
_ROW_EPS = 1e-6


def actdiff(clean: Sequence[Tensor], corrupted: Sequence[Tensor], norm: ActDiffNorm = "rms") -> Tensor:
    r"""Activation difference between two passes, per sample.

    .. math::
        \mathcal{L}_\mathrm{act} = \frac{1}{L} \sum_{l=1}^{L} \| o_l(\tilde x) - o_l(x) \|

    with :math:`o_l` the pre-activation output of layer :math:`l`, :math:`\tilde x` the image whose outside is
    corrupted (Viviano et al., Eq. 1). ``"l2"`` is that equation. It grows with the layer's size, so that one weight
    does not serve two networks; the default ``"rms"`` divides by the square root of the number of elements.
    ``"rows"`` is what the published code computes: the norm along the last axis alone, of the difference plus 1e-6,
    averaged over all rows of all layers, so that large layers weigh more.

    Args:
        clean: L tensors (N, ...), one a layer.
        corrupted: L tensors of the same shapes.
        norm: ``"rms"``, ``"l2"`` or ``"rows"``.

    Returns:
        (N,), 0 or more, in float32 (float64 for float64 inputs). Exactly 0 with zero gradient where both passes agree
        (``"rms"`` and ``"l2"``).

    Raises:
        ShapeError: if there is no layer, the numbers of layers or two shapes differ, or the batch sizes differ.
        RangeError: if the norm is unknown.

    Example:
        >>> actdiff([torch.tensor([[3.0, 4.0]])], [torch.zeros(1, 2)], norm="l2")
        tensor([5.])
    """
    check_choice("norm", norm, NORMS)
    _check(clean, corrupted)
    pairs = zip(clean, corrupted, strict=True)
    return mean_length([layer_difference(a, b, norm) for a, b in pairs], len(clean[0]), norm)


def layer_difference(clean: Tensor, corrupted: Tensor, norm: ActDiffNorm) -> Tensor:
    """What has to be known of one layer, small beside the layer itself.

    Args:
        clean: (M, ...).
        corrupted: of the same shape.
        norm: as in :func:`actdiff`.

    Returns:
        (M,), the mean (``"rms"``) or sum (``"l2"``) of the squared differences, or (M, R), the lengths of all rows.
    """
    difference = at_least_float32(clean) - at_least_float32(corrupted)
    if norm == "rows":
        return safe_sqrt((difference + _ROW_EPS).square().sum(-1, keepdim=True)).flatten(1)
    squares = difference.square().flatten(1)
    return squares.mean(1) if norm == "rms" else squares.sum(1)


def mean_length(differences: Sequence[Tensor], n: int, norm: ActDiffNorm) -> Tensor:
    """Put the layers together.

    Args:
        differences: what :func:`layer_difference` gave for each; a layer may have k entries for each image, M = N k.
        n: the number N of images.
        norm: the same.

    Returns:
        (N,), as :func:`actdiff`.
    """
    entries = [d.reshape(n, d.numel() // max(n, 1)) for d in differences]
    if norm == "rows":
        return torch.cat(entries, dim=1).mean(1)
    return torch.stack([safe_sqrt(d.mean(1) if norm == "rms" else d.sum(1)) for d in entries]).mean(0)


def _check(clean: Sequence[Tensor], corrupted: Sequence[Tensor]) -> None:
    shapes = [tuple(a.shape) for a in clean]
    others = [tuple(b.shape) for b in corrupted]
    if not shapes or shapes != others or any(len(s) < 2 or s[0] != shapes[0][0] for s in shapes):
        raise ShapeError(
            got=f"clean layers of shapes {shapes} and corrupted ones of shapes {others}",
            needed="at least one layer, the same shapes (N, ...) in both, one batch size",
            fix="pass the same layers of both passes, in the same order",
        )
