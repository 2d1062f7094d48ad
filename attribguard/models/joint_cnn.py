"""Joint-CNN."""

from __future__ import annotations

from functools import partial
from typing import Any

import timm
from torch import nn

from attribguard.errors import RangeError
from attribguard.models.checks import check_whole
from attribguard.models.joint import JointClassifier, joint_classifier

__all__ = ["joint_cnn"]


def joint_cnn(
    num_classes: int = 2,
    *,
    segmentation_encoder: nn.Module | None = None,
    name: str = "efficientnet_b0",
    in_chans: int = 3,
    pretrained: bool = False,
    **options: Any,
) -> JointClassifier:
    """Joint-CNN: :func:`~attribguard.models.joint_classifier` with two convolutional networks of timm.

    Source: Hirata and Okita, Table 1, whose caption says EfficientNet. They leave open which one; B0 is our choice.

    Args:
        num_classes: number of logits, 1 or more.
        segmentation_encoder: the encoder of a network that was trained to segment. By default a new one is built, which
            is only of use to try things out: it stays frozen, and has never seen a segmentation.
        name: of a timm model.
        in_chans: channels of the images, 1 or more.
        pretrained: whether what is built starts from timm's weights, which are downloaded.
        options: of ``timm.create_model``, such as ``drop_path_rate`` and ``cache_dir``.

    Returns:
        The network, from (N, in_chans, H, W) to (N, num_classes).

    Raises:
        RangeError: if timm has no model of that name.
        AttribGuardError: as :func:`~attribguard.models.joint_classifier` does.

    Example:
        >>> import torch
        >>> joint_cnn(name="resnet18")(torch.rand(4, 3, 64, 64)).shape
        torch.Size([4, 2])
    """
    check_whole(in_chans=in_chans)
    if not timm.is_model(name):
        raise RangeError(got=f"name={name!r}", needed="the name of a timm model", fix="see timm.list_models()")
    build = partial(timm.create_model, name, pretrained=pretrained, in_chans=in_chans, num_classes=0, **options)
    return joint_classifier(build() if segmentation_encoder is None else segmentation_encoder, build(), num_classes)
