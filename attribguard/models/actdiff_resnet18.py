"""The 18-layer ResNet of the ActDiff paper."""

from __future__ import annotations

from typing import Any

from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from attribguard.models.checks import Norm, check_norm, check_whole

__all__ = ["actdiff_resnet18"]


def actdiff_resnet18(num_classes: int = 2, in_chans: int = 1, *, channels: int = 64, norm: Norm = "batch") -> nn.Module:
    """The ResNet-18 of timm with ReLUs that do not work in place, so that what enters them can be read after the pass.

    Source: Viviano et al., Sections 4 and 6, who say no more than "a simple 18-layer ResNet model (He et al., 2016)".
    They leave open the stem, the widths, the pooling, the normalisation and the first weights. We chose those of He et
    al.: a 7x7 convolution of stride 2 and max pooling, 64, 128, 256 and 512 channels in stages of two blocks, global
    average pooling, BatchNorm behind every convolution; no residual branch starts from zero, which timm's do by
    default. ActDiff compares 17 pre-activations.

    The stem suits large images. It leaves 7x7 cells of a 28x28 image, and the last stage only one: for maps of where
    the network looks, name an earlier stage, such as ``layer1``.

    Args:
        num_classes: number of logits, 1 or more.
        in_chans: channels of the images, 1 or more.
        channels: of the first stage, 1 or more; the stages have 1, 2, 4 and 8 times as many. The stem has 64 always.
        norm: ``"batch"``, or ``"none"``: the identity in place of every BatchNorm. Convolutions have no bias in either.

    Returns:
        A ``timm.models.resnet.ResNet`` from (N, in_chans, H, W) to (N, num_classes); images may have any size.

    Raises:
        RangeError: if a number is not whole or too small, or ``norm`` unknown.

    Example:
        >>> import torch
        >>> actdiff_resnet18(channels=8)(torch.rand(4, 1, 28, 28)).shape
        torch.Size([4, 2])
    """
    check_whole(num_classes=num_classes, in_chans=in_chans, channels=channels)
    check_norm(norm)
    block: Any = BasicBlock
    model: nn.Module = ResNet(
        block,
        (2, 2, 2, 2),
        num_classes=num_classes,
        in_chans=in_chans,
        channels=(channels, 2 * channels, 4 * channels, 8 * channels),
        norm_layer=nn.BatchNorm2d if norm == "batch" else nn.Identity,
        zero_init_last=False,
    )
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model
