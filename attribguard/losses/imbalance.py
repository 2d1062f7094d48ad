"""Losses for labels that are rarely set, as modules that keep the counts of the data set."""

from __future__ import annotations

from torch import Tensor

from attribguard.functional.checks import Counts, check_beta, check_focusing
from attribguard.functional.imbalance import bce, class_balanced_focal, focal, weighted_bce
from attribguard.losses.base import Loss, Reduction, Validate
from attribguard.losses.counted import CountedLoss

__all__ = ["BCE", "ClassBalancedFocal", "Focal", "WeightedBCE"]


class BCE(Loss):
    """Binary cross entropy from logits, :func:`attribguard.functional.bce`: (N, K), (N,) or (N, 1).

    ``torch.nn.BCEWithLogitsLoss`` but for what ``reduction="none"`` gives and for the targets, which are 0 and 1 only.

    Args:
        reduction: ``"mean"``, ``"sum"`` (Li et al., Eq. 1) or ``"none"``: (N,), the mean over each sample's labels.
        validate: whether to look at the targets' values: ``"auto"`` always on the CPU and in the first ten calls on an
            accelerator; never in a compiled graph.

    Raises:
        RangeError: if an argument is unknown.

    Example:
        >>> import torch
        >>> BCE()(torch.zeros(2, 3), torch.tensor([[0, 1, 1], [0, 0, 1]]))
        tensor(0.6931)
    """

    def elements(self, logits: Tensor, targets: Tensor, *, validate: bool) -> Tensor:
        """One value for each logit."""
        return bce(logits, targets, validate=validate)


class Focal(Loss):
    r"""Focal loss, :func:`attribguard.functional.focal`: (N, K), (N,) or (N, 1).

    Args:
        alpha: the positives' share of the weight, between 0 and 1; ``None`` leaves it out. 0.25 in both papers.
        gamma: 0 or more; 2 in both papers.
        reduction: as in :class:`BCE`.
        validate: as in :class:`BCE`.

    Raises:
        RangeError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> Focal(gamma=1.0)(torch.zeros(2), torch.tensor([0, 1]))
        tensor(0.1733)
    """

    def __init__(
        self,
        alpha: float | None = 0.25,
        gamma: float = 2.0,
        *,
        reduction: Reduction = "mean",
        validate: Validate = "auto",
    ) -> None:
        super().__init__(reduction=reduction, validate=validate)
        check_focusing(gamma, alpha)
        self.alpha, self.gamma = alpha, gamma

    def elements(self, logits: Tensor, targets: Tensor, *, validate: bool) -> Tensor:
        """One value for each logit."""
        return focal(logits, targets, alpha=self.alpha, gamma=self.gamma, validate=validate)

    def extra_repr(self) -> str:
        """The settings."""
        return f"alpha={self.alpha}, gamma={self.gamma}, {super().extra_repr()}"


class WeightedBCE(CountedLoss):
    """Binary cross entropy weighed by how rare a side is, :func:`attribguard.functional.weighted_bce`.

    Args:
        positive: how often each label is set in the training data, (K,) whole numbers of 1 or more; a number for one
            label.
        negative: how often it is not, the same.
        reduction: as in :class:`BCE`.
        validate: as in :class:`BCE`.

    Attributes:
        positive: int64 buffer, moved and saved with the module.
        negative: the same.

    Raises:
        ShapeError: if the counts are not of one length.
        TypeMismatchError: if they are no numbers.
        RangeError: if a count is no whole number of 1 or more, or an argument is unknown.

    Example:
        >>> import torch
        >>> WeightedBCE.from_targets(torch.tensor([1, 0, 0, 0]))
        WeightedBCE(reduction='mean', positive=1, negative=3)
    """

    lowest_count = 1  # the other side's weight would be 0

    def __init__(
        self, positive: Counts, negative: Counts, *, reduction: Reduction = "mean", validate: Validate = "auto"
    ) -> None:
        super().__init__(positive, negative, reduction=reduction, validate=validate)

    def elements(self, logits: Tensor, targets: Tensor, *, validate: bool) -> Tensor:
        """One value for each logit."""
        return weighted_bce(logits, targets, self.positive, self.negative, validate=validate)


class ClassBalancedFocal(CountedLoss):
    """Focal loss weighed by the effective number of samples, :func:`attribguard.functional.class_balanced_focal`.

    Args:
        positive: how often each label is set in the training data, (K,) whole numbers of 0 or more; a number for one
            label. 0 counts as 1, but :meth:`from_targets` refuses it.
        negative: how often it is not, the same.
        beta: 0 or more, below 1.
        gamma: 0 or more.
        normalize: whether the weights of a label's two sides are scaled to sum to 2.
        reduction: as in :class:`BCE`.
        validate: as in :class:`BCE`.

    Attributes:
        positive: int64 buffer, moved and saved with the module.
        negative: the same.

    Raises:
        ShapeError: if the counts are not of one length.
        TypeMismatchError: if they are no numbers.
        RangeError: if a count is no whole number of 0 or more, or an argument is out of its range.

    Example:
        >>> import torch
        >>> loss = ClassBalancedFocal(positive=1, negative=2, beta=0.5, reduction="none")
        >>> loss(torch.zeros(2), torch.tensor([1, 0]))
        tensor([0.1733, 0.1155])
    """

    def __init__(
        self,
        positive: Counts,
        negative: Counts,
        *,
        beta: float = 0.9999,
        gamma: float = 2.0,
        normalize: bool = False,
        reduction: Reduction = "mean",
        validate: Validate = "auto",
    ) -> None:
        super().__init__(positive, negative, reduction=reduction, validate=validate)
        check_beta(beta)
        check_focusing(gamma)
        self.beta, self.gamma, self.normalize = beta, gamma, normalize

    def elements(self, logits: Tensor, targets: Tensor, *, validate: bool) -> Tensor:
        """One value for each logit."""
        return class_balanced_focal(
            logits,
            targets,
            self.positive,
            self.negative,
            beta=self.beta,
            gamma=self.gamma,
            normalize=self.normalize,
            validate=validate,
        )

    def extra_repr(self) -> str:
        """The counts and settings."""
        return f"beta={self.beta}, gamma={self.gamma}, normalize={self.normalize}, {super().extra_repr()}"
