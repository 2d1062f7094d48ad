r"""Losses for labels that are rarely set: binary cross entropy with a weight on each side.

All are Eq. 1 of Li et al., for each sample and label,

.. math::
    -\left[ w_+ \, y \log p + w_- (1 - y) \log (1 - p) \right], \qquad p = \sigma(z),

and differ in the weights. One departure is common to all: the equation sums over samples, these return its summands.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.functional.checks import Counts, check_beta, check_focusing, counts_for, logits_and_labels

__all__ = ["bce", "class_balanced_focal", "focal", "weighted_bce"]


def bce(logits: Tensor, targets: Tensor, *, validate: bool = True) -> Tensor:
    r"""Binary cross entropy from logits, element by element: Li et al., Eq. 1 with :math:`w_+ = w_- = 1`.

    Args:
        logits: (N, K) for K independent labels, (N,) or (N, 1) for one; any real number.
        targets: 0 and 1 in the logits' shape; for one label (N,) and (N, 1) may meet.
        validate: whether to look at the targets' values, for which an accelerator has to be waited for; a compiled
            graph never does.

    Returns:
        0 or more in the logits' shape, float32 (float64 for float64 logits); accurate, with finite derivatives, where
        :math:`p` rounds to 0 or 1.

    Raises:
        ShapeError: if a shape does not fit.
        TypeMismatchError: if a type or device does not fit.
        RangeError: if a target is neither 0 nor 1.

    Example:
        >>> bce(torch.tensor([0.0, 80.0]), torch.tensor([1, 0]))
        tensor([ 0.6931, 80.0000])
    """
    z, y = logits_and_labels(logits, targets, validate=validate)
    return _weighted(z, y)


def weighted_bce(
    logits: Tensor, targets: Tensor, positive: Counts, negative: Counts, *, validate: bool = True
) -> Tensor:
    r"""Binary cross entropy in which both sides of a label weigh the same over the data set: Li et al., Sec. 3.1.

    .. math::
        w_+ = \frac{N_-}{N_+ + N_-}, \qquad w_- = \frac{N_+}{N_+ + N_-}

    This is :math:`N_+ / (N_+ + N_-)` times ``BCEWithLogitsLoss(pos_weight=N₋/N₊)``. A count of 0 is refused: the
    other side's weight would be 0 and with it all of the label.

    Args:
        logits: as in :func:`bce`.
        targets: as in :func:`bce`.
        positive: :math:`N_+`, (K,) whole numbers of 1 or more; a number for one label.
        negative: :math:`N_-`, the same.
        validate: as in :func:`bce`, and for the counts.

    Returns:
        0 or more in the logits' shape, as in :func:`bce`.

    Raises:
        ShapeError: if a shape does not fit, or there is not one count for each label.
        TypeMismatchError: if a type or device does not fit.
        RangeError: if a target is neither 0 nor 1, or a count no whole number of 1 or more.

    Example:
        >>> weighted_bce(torch.zeros(2), torch.tensor([1, 0]), positive=1, negative=3)
        tensor([0.5199, 0.1733])
    """
    z, y = logits_and_labels(logits, targets, validate=validate)
    n_positive, n_negative = counts_for(z, positive, negative, lowest=1, validate=validate)
    total = n_positive + n_negative
    return _weighted(z, y, n_negative / total, n_positive / total)


def focal(
    logits: Tensor, targets: Tensor, *, alpha: float | None = 0.25, gamma: float = 2.0, validate: bool = True
) -> Tensor:
    r"""Focal loss (Lin et al.), which fades out what the network is sure of: Li et al., Sec. 3.1.

    .. math::
        w_+ = \alpha (1 - p)^\gamma, \qquad w_- = (1 - \alpha) \, p^\gamma

    Equal to ``torchvision.ops.sigmoid_focal_loss``.

    Args:
        logits: as in :func:`bce`.
        targets: as in :func:`bce`.
        alpha: the positives' share of the weight, between 0 and 1; ``None`` leaves both factors out.
        gamma: 0 or more; 0 fades nothing.
        validate: as in :func:`bce`.

    Returns:
        0 or more in the logits' shape, as in :func:`bce`.

    Raises:
        ShapeError: if a shape does not fit.
        TypeMismatchError: if a type or device does not fit.
        RangeError: if a target is neither 0 nor 1, or alpha or gamma is out of its range.

    Example:
        >>> focal(torch.zeros(2), torch.tensor([1, 0]))
        tensor([0.0433, 0.1300])
    """
    check_focusing(gamma, alpha)
    z, y = logits_and_labels(logits, targets, validate=validate)
    if alpha is None:
        return _weighted(z, y, gamma=gamma)
    return _weighted(z, y, alpha, 1 - alpha, gamma)


def class_balanced_focal(
    logits: Tensor,
    targets: Tensor,
    positive: Counts,
    negative: Counts,
    *,
    beta: float = 0.9999,
    gamma: float = 2.0,
    normalize: bool = False,
    validate: bool = True,
) -> Tensor:
    r"""Focal loss weighed by the effective number of samples (Cui et al.): Li et al., Sec. 3.1.

    .. math::
        w_+ = \frac{1 - \beta}{1 - \beta^{N_+}} (1 - p)^\gamma, \qquad
        w_- = \frac{1 - \beta}{1 - \beta^{N_-}} \, p^\gamma

    A count of 0, for which the weight is infinite, counts as 1. The equation's weights fall towards :math:`1 - \beta`
    with the counts and so shrink the loss; Cui et al. scale them to sum to the number of classes, which for the two
    sides of a label is 2: ``normalize=True``.

    Args:
        logits: as in :func:`bce`.
        targets: as in :func:`bce`.
        positive: :math:`N_+`, (K,) whole numbers of 0 or more; a number for one label.
        negative: :math:`N_-`, the same.
        beta: 0 or more, below 1; 0 weighs both sides by 1.
        gamma: 0 or more.
        normalize: whether the weights of a label's two sides are scaled to sum to 2.
        validate: as in :func:`weighted_bce`.

    Returns:
        0 or more in the logits' shape, as in :func:`bce`.

    Raises:
        ShapeError: if a shape does not fit, or there is not one count for each label.
        TypeMismatchError: if a type or device does not fit.
        RangeError: if a target is neither 0 nor 1, a count no whole number of 0 or more, or beta or gamma is out of
            its range.

    Example:
        >>> class_balanced_focal(torch.zeros(2), torch.tensor([1, 0]), 1, 2, beta=0.5)
        tensor([0.1733, 0.1155])
    """
    check_beta(beta)
    check_focusing(gamma)
    z, y = logits_and_labels(logits, targets, validate=validate)
    counts = counts_for(z, positive, negative, lowest=0, validate=validate)
    # expm1, because 1 - beta^N cancels for few samples: in float32 the plain form is off by 1.7e-4.
    log_beta = math.log(beta) if beta > 0 else -math.inf
    w_positive, w_negative = ((beta - 1) / torch.expm1(log_beta * n.clamp(min=1)) for n in counts)
    if normalize:
        total = w_positive + w_negative
        w_positive, w_negative = 2 * w_positive / total, 2 * w_negative / total
    return _weighted(z, y, w_positive, w_negative, gamma)


def _weighted(
    z: Tensor, y: Tensor, positive: Tensor | float = 1.0, negative: Tensor | float = 1.0, gamma: float = 0.0
) -> Tensor:
    """Eq. 1, with the weights times (1 - p)^gamma for positives and p^gamma for negatives."""
    # sigmoid(wrong) is 1 - p where the label is set and p where it is not: the probability given to the other side.
    wrong = (1 - 2 * y) * z
    # logsigmoid and not softplus, which is the identity above 20 and has no second derivative there.
    loss = -F.logsigmoid(-wrong)
    if gamma:
        # Not as a power: where sigmoid underflows, its derivative is 0^(gamma - 1) * 0, which is nan for gamma < 1.
        loss = loss * torch.exp(gamma * F.logsigmoid(wrong))
    return (y * positive + (1 - y) * negative) * loss
