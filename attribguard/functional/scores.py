"""Scores: one number an image, of which the input gradient is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, check_choice

__all__ = [
    "LINEAR_SCORES",
    "SCORES",
    "Score",
    "as_matrix",
    "contrast",
    "has_classes",
    "log_prob",
    "log_probs",
    "logit_weights",
    "named_score",
    "projection",
    "target",
]

Score = Callable[[Tensor, Any], Tensor]
LINEAR_SCORES = ("target", "predicted", "projection")


def as_matrix(logits: Tensor) -> Tensor:
    """Logits as (N, K), at least float32: half precision is too coarse to differentiate.

    Args:
        logits: (N, K), or (N,) for one output.
    """
    return (logits[:, None] if logits.dim() == 1 else logits).to(torch.promote_types(logits.dtype, torch.float32))


def _signs(logits: Tensor, target: Tensor) -> Tensor:
    """+1 where a label is set, -1 where it is not, for one output or several independent ones."""
    if target.numel() != logits.numel():
        raise ShapeError(
            got=f"a target of shape {tuple(target.shape)} for logits of shape {tuple(logits.shape)}",
            needed="class indices (N,), or one label for each logit",
            fix="give the target in one of these forms",
        )
    return 2 * target.reshape(logits.shape).to(logits.dtype) - 1


def has_classes(logits: Tensor, target: Tensor) -> bool:
    """Whether the outputs are exclusive classes: several of them, and one index an image."""
    return logits.shape[1] > 1 and target.dim() == 1


def target(logits: Tensor, target: Tensor) -> Tensor:
    """The true class's logit; for one output or several labels the logits, each towards its own label.

    Args:
        logits: (N, K), or (N,) for one output.
        target: (N,) class indices; labels (N,), (N, 1) or (N, K) in [0, 1] for independent outputs.

    Returns:
        (N,).

    Raises:
        ShapeError: if the target fits neither form.

    Example:
        >>> target(torch.tensor([[1.0, 3.0]]), torch.tensor([1]))
        tensor([3.])
    """
    z = as_matrix(logits)
    if has_classes(z, target):
        return z.gather(1, target.long()[:, None]).squeeze(1)
    return (_signs(z, target) * z).sum(1)


def logit_weights(score: str, logits: Tensor, target: Tensor) -> Tensor:
    """The factor of each logit in a score that is linear in them.

    Args:
        score: ``"target"``: the true class, or each label's own sign; ``"predicted"``: the largest logit, or each
            output's sign where they are independent; ``"projection"``: a fresh normal vector for each sample.
        logits: (N, K), or (N,) for one output.
        target: as in :func:`target`.

    Returns:
        (N, K), without a graph.

    Raises:
        RangeError: if the score is unknown.

    Example:
        >>> logit_weights("predicted", torch.tensor([[1.0, 3.0]]), torch.tensor([0]))
        tensor([[0., 1.]])
    """
    check_choice("score", score, LINEAR_SCORES)
    z = as_matrix(logits.detach())
    if score == "projection":
        return torch.randn_like(z)
    if has_classes(z, target):
        return F.one_hot(target.long() if score == "target" else z.argmax(1), z.shape[1]).to(z.dtype)
    return _signs(z, target) if score == "target" else torch.where(z >= 0, 1.0, -1.0).to(z.dtype)


def projection(logits: Tensor, target: Tensor) -> Tensor:
    """The logits times a fresh normal vector for each sample: it moves whenever any logit does.

    Args:
        logits: (N, K), or (N,) for one output.
        target: not used.

    Returns:
        (N,).

    Example:
        >>> projection(torch.zeros(2, 3), torch.tensor([0, 1]))
        tensor([0., 0.])
    """
    z = as_matrix(logits)
    return (torch.randn_like(z) * z).sum(1)


def log_prob(logits: Tensor, target: Tensor) -> Tensor:
    r"""The log-probability of the truth: :math:`\log p_y`, or :math:`\sum_k \log \sigma(\pm z_k)` for labels.

    Args:
        logits: (N, K), or (N,) for one output.
        target: as in :func:`target`.

    Returns:
        (N,), 0 or less.

    Example:
        >>> log_prob(torch.zeros(1, 2), torch.tensor([0]))
        tensor([-0.6931])
    """
    z = as_matrix(logits)
    if has_classes(z, target):
        return z.log_softmax(1).gather(1, target.long()[:, None]).squeeze(1)
    return F.logsigmoid(_signs(z, target) * z).sum(1)


def contrast(logits: Tensor, target: Tensor) -> Tensor:
    r"""How far the classes are apart: :math:`|\hat y_1 - \hat y_0|` (Viviano et al., Eq. 2).

    With more than two classes the true class's logit against the best other; for independent outputs
    :math:`\sum_k |z_k|`, each label's own contrast.

    Args:
        logits: (N, K), or (N,) for one output.
        target: as in :func:`target`.

    Returns:
        (N,), 0 or more.

    Example:
        >>> contrast(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([0]))
        tensor([2.])
    """
    z = as_matrix(logits)
    if not has_classes(z, target):
        return z.abs().sum(1)
    own = F.one_hot(target.long(), z.shape[1]).bool()
    return (z[own] - z.masked_fill(own, -torch.inf).amax(1)).abs()


def log_probs(logits: Tensor, target: Tensor) -> Tensor:
    r"""The sum of all log-probabilities, :math:`\sum_k \log p_k` (Ross et al.).

    With one output softmax would make it constant; independent outputs count both of their probabilities,
    :math:`\sum_k \log \sigma(z_k) + \log \sigma(-z_k)`.

    Args:
        logits: (N, K), or (N,) for one output.
        target: as in :func:`target`; only its form is used.

    Returns:
        (N,), below 0.

    Example:
        >>> log_probs(torch.zeros(1, 2), torch.tensor([0]))
        tensor([-1.3863])
    """
    z = as_matrix(logits)
    if has_classes(z, target):
        return z.log_softmax(1).sum(1)
    return (F.logsigmoid(z) + F.logsigmoid(-z)).sum(1)


SCORES: dict[str, Score] = {
    "target": target,
    "contrast": contrast,
    "log_prob": log_prob,
    "log_probs": log_probs,
    "projection": projection,
}


def named_score(score: str | Score) -> Score:
    """The score of that name; a callable is one already.

    Args:
        score: a key of :data:`SCORES`, or a callable ``(logits, target) -> (N,)``.

    Raises:
        RangeError: if there is none of that name.
    """
    if callable(score):
        return score
    if score not in SCORES:
        raise RangeError(
            got=f"score {score!r}",
            needed=f"one of {tuple(SCORES)}, or a callable (logits, target) -> (N,)",
            fix="choose one of them",
        )
    return SCORES[score]
