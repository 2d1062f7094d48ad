"""The segmentation loss as a module."""

from __future__ import annotations

from torch import Tensor

from attribguard.functional.dice_ce import Over, check_settings, dice_ce
from attribguard.losses.base import Loss, Reduction, Validate

__all__ = ["DiceCE"]


class DiceCE(Loss):
    """Cross entropy and Dice of a segmentation, :func:`attribguard.functional.dice_ce`.

    Args:
        ce: weight of the cross entropy, 0 or more.
        dice: weight of Dice, 0 or more.
        over: ``"sample"`` takes Dice over each image, ``"batch"`` over the batch as a whole.
        squared: whether Dice's denominator takes squares; with ``over="batch"`` the Swin-Unet trainer's loss.
        ignore_index: marks the pixels that do not count.
        smooth: added to both sides of Dice's fraction, above 0.
        reduction: ``"mean"`` and ``"sum"`` over the images, or ``"none"``: (N,).
        validate: whether to look at the target's values: ``"auto"`` always on the CPU and in the first ten calls on an
            accelerator; never in a compiled graph.

    Raises:
        RangeError: if an argument is out of its range.
        TypeMismatchError: if a weight or the smoothing is no number.

    Example:
        >>> import torch
        >>> DiceCE()(torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]]))
        tensor(0.5773)
    """

    def __init__(
        self,
        *,
        ce: float = 0.4,
        dice: float = 0.6,
        over: Over = "sample",
        squared: bool = False,
        ignore_index: int = -100,
        smooth: float = 1e-5,
        reduction: Reduction = "mean",
        validate: Validate = "auto",
    ) -> None:
        super().__init__(reduction=reduction, validate=validate)
        check_settings(ce, dice, over, smooth)
        self.ce, self.dice, self.over, self.squared = ce, dice, over, squared
        self.ignore_index, self.smooth = ignore_index, smooth

    def elements(self, logits: Tensor, targets: Tensor, *, validate: bool) -> Tensor:
        """One value for each image."""
        return dice_ce(
            logits,
            targets,
            ce=self.ce,
            dice=self.dice,
            over=self.over,
            squared=self.squared,
            ignore_index=self.ignore_index,
            smooth=self.smooth,
            validate=validate,
        )

    def extra_repr(self) -> str:
        """The settings."""
        settings = ("ce", "dice", "over", "squared", "ignore_index", "smooth", "reduction")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in settings)
