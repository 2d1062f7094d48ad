"""T-DenseNet: a DenseNet that ends early, for maps with fine cells."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from attribguard.models.checks import check_whole
from attribguard.models.pretrained import copy_pretrained

__all__ = ["t_densenet"]


def t_densenet(num_classes: int = 14, in_chans: int = 3, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """DenseNet-121 without its last two dense blocks and the transitions before them.

    Source: Li et al., Section 4.1: "We discard the last two dense blocks and the associated transition blocks, so that
    the last feature maps have size 28×28", for images of 224×224 pixels; pretrained on ImageNet. The last map, of 512
    channels, is what ``features.norm5`` gives; global average pooling and one linear layer follow. The paper leaves
    open which DenseNet it is and what normalises the last map. We chose DenseNet-121, and BatchNorm with a ReLU as in
    whole DenseNets; pretrained, they start from those that follow the same block there, ``transition2.norm``.

    Args:
        num_classes: number of logits, 1 or more; 14 are the findings of NIH Chest X-ray.
        in_chans: channels of the images, 1 or more; timm fits the pretrained first convolution to them.
        pretrained: whether to start from timm's ImageNet weights of the whole DenseNet-121, which are downloaded. The
            linear layer is new in any case.
        options: of ``timm.create_model``, such as ``drop_rate``, ``cache_dir`` and ``pretrained_cfg_overlay``.

    Returns:
        A ``timm.models.densenet.DenseNet`` from (N, in_chans, H, W) to (N, num_classes), for images of any size from
        5x5 pixels.

    Raises:
        RangeError: if a number is not whole or too small.
        ModelError: if the options make another network than the pretrained one begins with.

    Example:
        >>> import torch
        >>> model = t_densenet(num_classes=3)
        >>> model.forward_features(torch.rand(1, 3, 224, 224)).shape
        torch.Size([1, 512, 28, 28])
    """
    check_whole(num_classes=num_classes, in_chans=in_chans)
    options |= {"in_chans": in_chans}
    model: nn.Module = timm.create_model("densenet121", block_config=(6, 12), num_classes=num_classes, **options)
    if pretrained:
        # With its own classes, so that timm makes sure that the file holds every tensor.
        whole: Any = timm.create_model("densenet121", pretrained=True, **options)
        whole.reset_classifier(0)
        whole.features.norm5 = whole.features.transition2.norm
        copy_pretrained(whole, model, unused=_is_left_out, fresh=lambda key: key.startswith("classifier."))
    return model


def _is_left_out(key: str) -> bool:
    return key.startswith(
        tuple(f"features.{part}." for part in "transition2 denseblock3 transition3 denseblock4".split())
    )
