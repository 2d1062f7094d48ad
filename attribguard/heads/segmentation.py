"""Segmentation as an auxiliary task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attribguard.batch import Batch
from attribguard.errors import RangeError
from attribguard.functional.checks import is_whole
from attribguard.functional.dice_ce import Over, check_classes, check_settings, dice_ce
from attribguard.heads.base import DecoderChoice, Head
from attribguard.masks import inside

__all__ = ["SegmentationHead"]


class SegmentationHead(Head):
    r"""Cross entropy and Dice of a segmentation drawn from the classifier's features.

    .. math::
        L_\mathrm{seg} = \lambda_\mathrm{ce} L_\mathrm{ce} + \lambda_\mathrm{dice} L_\mathrm{dice}

    Hirata and Okita, Eqs. 1 to 3, see :func:`attribguard.functional.dice_ce`; ``over="batch", squared=True`` is what
    the Swin-Unet trainer computes. The target is the step's ``segmentation``; where none is given and there are at
    most two classes, its binary ``mask`` (1 from 0.5 on). Rows that are not annotated count nowhere, nor do pixels of
    ``ignore_index``. The prediction, (N, num_classes, H, W), is logits.

    Args:
        num_classes: 2 or more, the background included, for a softmax; 1 for a sigmoid.
        weight: 0 or more; 0.4 in the paper.
        ce: weight of the cross entropy, 0 or more.
        dice: weight of Dice, 0 or more.
        over: ``"sample"`` takes Dice over each image, ``"batch"`` over all annotated ones together; only the former
            makes accumulated and distributed batches add up.
        squared: whether Dice's denominator takes squares.
        ignore_index: marks the pixels that do not count.
        decoder: see :class:`Head`.
        layers: see :class:`Head`.
        name: the term's and the prediction's name.

    Raises:
        RangeError: if an argument is out of its range.

    Example:
        >>> SegmentationHead(num_classes=2, weight=0.4)
        SegmentationHead(weight=0.4, name='segmentation', num_classes=2, ce=0.4, dice=0.6, over='sample', squared=False)
    """

    def __init__(
        self,
        num_classes: int,
        weight: float,
        *,
        ce: float = 0.4,
        dice: float = 0.6,
        over: Over = "sample",
        squared: bool = False,
        ignore_index: int = -100,
        decoder: DecoderChoice = "auto",
        layers: str | Sequence[str] = (),
        name: str = "segmentation",
    ) -> None:
        super().__init__(weight, decoder=decoder, layers=layers, name=name)
        check_settings(ce, dice, over, 1.0)
        for what, number, least in (("num_classes", num_classes, 1), ("ignore_index", ignore_index, None)):
            if not is_whole(number, least):
                needed = "a whole number" if least is None else f"a whole number, {least} or more"
                raise RangeError(got=f"{what}={number!r}", needed=needed, fix=f"give another {what}")
        self.num_classes, self.ignore_index = num_classes, ignore_index
        self.ce, self.dice, self.over, self.squared = ce, dice, over, squared

    def out_channels(self, image_channels: int) -> int:
        """One a class."""
        return self.num_classes

    def rows(self, batch: Batch) -> Tensor:
        """Those whose segmentation counts, or whose mask does where that is the target."""
        return batch.annotated if self._reads_mask(batch) else batch.segmented

    def check(self, batch: Batch, *, values: bool) -> None:
        """Refuse classes out of range on the rows that count."""
        if values and batch.segmentation is not None:
            labels = batch.segmentation[batch.segmented].long()
            check_classes(labels[labels != self.ignore_index], self.num_classes)

    def loss(self, prediction: Tensor, batch: Batch, corrupted: Tensor | None) -> Tensor:
        """The loss of each sample, (N,)."""
        labels = inside(batch.mask).squeeze(1) if self._reads_mask(batch) else batch.segmentation
        if labels is None:
            labels = torch.zeros_like(batch.mask, dtype=torch.long).squeeze(1)
        counted = self.rows(batch)[:, None, None]
        return dice_ce(
            prediction,
            torch.where(counted, labels.long(), self.ignore_index),
            ce=self.ce,
            dice=self.dice,
            over=self.over,
            squared=self.squared,
            ignore_index=self.ignore_index,
            validate=False,
        )

    def _reads_mask(self, batch: Batch) -> bool:
        return batch.segmentation is None and self.num_classes <= 2

    def extra_repr(self) -> str:
        """The settings."""
        names = ("num_classes", "ce", "dice", "over", "squared")
        return f"{super().extra_repr()}, " + ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
