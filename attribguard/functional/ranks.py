"""Scores by their order alone."""

from __future__ import annotations

from torch import Tensor

__all__ = ["as_ranks"]


def as_ranks(scores: Tensor) -> Tensor:
    """Replace scores by their places in the order, for figures that depend on nothing else, such as AUROC.

    torchmetrics squashes scores outside [0, 1] to probabilities, where large ones round to 1 and become ties.

    Args:
        scores: (N,), finite.

    Returns:
        (N,) float32 in [0, 1), equal for equal scores.

    Example:
        >>> import torch
        >>> as_ranks(torch.tensor([1000.0, 1001.0, 1000.0, -5.0]))
        tensor([0.2500, 0.5000, 0.2500, 0.0000])
    """
    ranks: Tensor = scores.unique(return_inverse=True)[1]
    return ranks / len(ranks)
