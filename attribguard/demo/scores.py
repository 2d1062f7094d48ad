"""What the demo measures of a trained network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torchmetrics.functional.classification import binary_auroc

from attribguard.attribution import saliency
from attribguard.demo.share_inside import share_inside
from attribguard.demo.splits import Split, Splits
from attribguard.functional.ranks import as_ranks
from attribguard.masks import dilate

__all__ = ["Scores", "measure"]


@dataclass(frozen=True)
class Scores:
    """Figures of one network.

    Attributes:
        train_auc: area under the ROC curve on the training images, in [0, 1].
        valid_auc: on the validation images, where the distractor stands on the other side.
        test_auc: likewise on the test images. 0: the network reads the distractor, 0.5: it guesses, 1: it counts.
        inside: share of the saliency inside the grown mask, in [0, 1], the mean over the test images.
    """

    train_auc: float
    valid_auc: float
    test_auc: float
    inside: float


def measure(model: nn.Module, splits: Splits, pixels: int) -> Scores:
    """Measure a network on all three splits.

    Args:
        model: images to logits (N, 2), in eval mode.
        splits: with both classes in each.
        pixels: by which the masks grow before saliency is counted as inside: what training allowed, no more.

    Returns:
        The figures.
    """
    test = splits.test
    maps = saliency(model, test.images, test.targets)
    inside = share_inside(maps, dilate(test.masks, pixels)[:, 0]).mean().item()
    return Scores(_auc(model, splits.train), _auc(model, splits.valid), _auc(model, test), inside)


@torch.no_grad()
def _auc(model: nn.Module, split: Split) -> float:
    logits = model(split.images)
    return binary_auroc(as_ranks(logits[:, 1] - logits[:, 0]), split.targets).item()
