"""The convolutional network of the ActDiff paper."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from attribguard.models.checks import Norm, check_norm, check_whole
from attribguard.models.double_convolution import double_convolution

__all__ = ["actdiff_cnn"]

_SMALLEST = 8  # pixels; three poolings leave one


def actdiff_cnn(
    num_classes: int = 2, in_chans: int = 1, *, img_size: int = 28, channels: int = 16, norm: Norm = "none"
) -> nn.Module:
    """Four blocks of two 3x3 convolutions, 2x2 max pooling between the blocks, flatten, one linear layer.

    Source: Viviano et al., Appendix B: "4 layers deep, with each layer consisting of a double convolution (kernel size
    of 3 and a stride of 1)", 16 channels in the first layer for the synthetic data and 64 for medical images, doubled
    for each subsequent layer, predictions from the deepest one. Every convolution has its ReLU, 8 in all. The paper
    leaves open, and we chose: padding by 1, max pooling, flattening in place of global pooling, which hides where a
    shape stands.

    Departures. (1) ``norm="batch"`` puts BatchNorm before each ReLU; convolutions then have no bias. Without it ActDiff
    collapses this network to a constant, as in the paper's own Table 1 ("CNN Actdiff", AUC 0.50). (2) The ReLUs do not
    work in place, so that what enters them can be read after the pass; the published code's overwrite it.

    Args:
        num_classes: number of logits, 1 or more.
        in_chans: channels of the images, 1 or more.
        img_size: height and width of the images in pixels, 8 or more; the linear layer depends on it.
        channels: of the first block, 1 or more; the blocks have 1, 2, 4 and 8 times as many.
        norm: ``"none"``, the paper's network, or ``"batch"``.

    Returns:
        A network from (N, in_chans, img_size, img_size) to (N, num_classes).

    Raises:
        RangeError: if a number is not whole or too small, or ``norm`` unknown.

    Example:
        >>> import torch
        >>> actdiff_cnn(channels=8, norm="batch")(torch.rand(4, 1, 28, 28)).shape
        torch.Size([4, 2])
    """
    check_whole(num_classes=num_classes, in_chans=in_chans, channels=channels)
    check_whole(_SMALLEST, img_size=img_size)
    check_norm(norm)
    widths = [in_chans, channels, 2 * channels, 4 * channels, 8 * channels]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, 5):
        if number > 1:
            parts[f"pool{number - 1}"] = nn.MaxPool2d(2)
        parts[f"block{number}"] = double_convolution(widths[number - 1], widths[number], norm)
    parts["flatten"] = nn.Flatten()
    parts["fc"] = nn.Linear(widths[-1] * (img_size // 8) ** 2, num_classes)
    return nn.Sequential(parts)
