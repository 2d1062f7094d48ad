"""Two classes, or one output: scores that depend on the logits through one number alone."""

from __future__ import annotations

import torch
from torch import Tensor

from attribguard.functional.scores import Score, as_matrix, contrast, has_classes, log_prob, log_probs

__all__ = ["MARGIN_SCORES", "margin", "slope"]

# Those that depend on the margin alone where there is one.
MARGIN_SCORES: tuple[Score, ...] = (contrast, log_prob, log_probs)


def margin(logits: Tensor, target: Tensor) -> Tensor | None:
    """The one number on which two classes or one output hang: :math:`z_1 - z_0`, or z.

    Args:
        logits: (N, K), or (N,) for one output.
        target: as in :func:`target`; only its form is used.

    Returns:
        (N,), or ``None`` where it takes more numbers.

    Example:
        >>> margin(torch.tensor([[1.0, 3.0]]), torch.tensor([0]))
        tensor([2.])
    """
    z = as_matrix(logits)
    if z.shape[1] == 1:
        return z[:, 0]
    return z[:, 1] - z[:, 0] if z.shape[1] == 2 and has_classes(z, target) else None


def slope(score: Score, margin: Tensor, target: Tensor, outputs: int) -> Tensor:
    r"""The derivative of a score by the margin d, such as :math:`-\tanh(d / 2)` for ``log_probs`` of two classes.

    Args:
        score: one of :data:`MARGIN_SCORES`.
        margin: (N,), d, with its graph.
        target: as in :func:`target`.
        outputs: K, 1 or 2.

    Returns:
        (N,), with its graph.

    Example:
        >>> d = torch.tensor([2.0, -1.0], requires_grad=True)
        >>> slope(log_probs, d, torch.tensor([0, 0]), 2).detach()
        tensor([-0.7616,  0.4621])
    """
    logits = margin[:, None] if outputs == 1 else torch.stack([torch.zeros_like(margin), margin], 1)
    (derivative,) = torch.autograd.grad(score(logits, target).sum(), margin, create_graph=True)
    return derivative
