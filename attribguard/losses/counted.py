"""Losses that know how often each label is set."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor

from attribguard.errors import RangeError, ShapeError
from attribguard.functional.checks import Counts, as_counts, as_labels
from attribguard.losses.base import Loss, Reduction, Validate

__all__ = ["CountedLoss"]


class CountedLoss(Loss):
    """A loss that weighs each label by how often it is set in the data set; the counts are buffers.

    Args:
        positive: (K,) whole numbers, or a number for one label: how often it is set.
        negative: the same: how often it is not.
        reduction: as in :class:`attribguard.losses.base.Loss`.
        validate: as in :class:`attribguard.losses.base.Loss`.

    Attributes:
        positive: int64, moved and saved with the module.
        negative: the same.
        lowest_count: the lowest count for which the weights are defined.

    Raises:
        ShapeError: if the counts are not of one length.
        TypeMismatchError: if they are no numbers.
        RangeError: if a count is no whole number, or below the lowest.
    """

    positive: Tensor
    negative: Tensor
    lowest_count = 0

    def __init__(self, positive: Counts, negative: Counts, *, reduction: Reduction, validate: Validate) -> None:
        super().__init__(reduction=reduction, validate=validate)
        pair = as_counts(positive, negative, lowest=self.lowest_count, validate=True)
        for name, counts in zip(("positive", "negative"), pair, strict=True):
            self.register_buffer(name, counts.clone())

    @classmethod
    def from_targets(cls, targets: Tensor, **settings: Any) -> Self:
        """Count the labels of a data set.

        Args:
            targets: (N, K), or (N,) for one label: 0 and 1 of all training images.
            **settings: the other arguments of the class.

        Returns:
            The loss with these counts.

        Raises:
            ShapeError: if the targets are not (N, K) or (N,).
            TypeMismatchError: if they are no tensor.
            RangeError: if one is neither 0 nor 1, or a class has no positives or no negatives.
        """
        labels = as_labels(targets, validate=True).bool()
        if labels.dim() not in (1, 2) or labels.numel() == 0:
            raise ShapeError(got=f"targets of shape {tuple(targets.shape)}", needed="(N, K) or (N,)", fix="stack them")
        positive, negative = labels.sum(0), (~labels).sum(0)
        for counts, missing, other in ((positive, "positives", "negative"), (negative, "negatives", "positive")):
            classes = (counts.flatten() == 0).nonzero().flatten().tolist()
            if classes:
                raise RangeError(
                    got=f"only {other} labels for class {', '.join(map(str, classes))}, among {len(labels)} samples",
                    needed="positives and negatives of each class",
                    fix=f"leave a class without {missing} out: there is nothing to balance; or pass counts of your own",
                )
        return cls(positive, negative, **settings)

    def extra_repr(self) -> str:
        """The settings and counts."""
        return f"{super().extra_repr()}, positive={self.positive.tolist()}, negative={self.negative.tolist()}"
