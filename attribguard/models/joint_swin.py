"""Joint-SwinTransformer."""

from __future__ import annotations

from typing import Any

from torch import nn

from attribguard.models.joint import JointClassifier, joint_classifier
from attribguard.models.swin import swin_backbone

__all__ = ["joint_swin"]


def joint_swin(
    num_classes: int = 2, *, segmentation_encoder: nn.Module | None = None, pretrained: bool = False, **options: Any
) -> JointClassifier:
    """Joint-SwinTransformer: :func:`~attribguard.models.joint_classifier` with two Swin Transformers.

    Source: Hirata and Okita, Figure 2. With the default sizes it has 40,829,846 parameters.

    Args:
        num_classes: number of logits, 1 or more.
        segmentation_encoder: the Swin Transformer of a Swin-Unet that was trained to segment. By default a new one is
            built, which is only of use to try things out: it stays frozen, and has never seen a segmentation.
        pretrained: whether what is built starts from timm's ImageNet weights, which are downloaded.
        options: of what is built, as :func:`~attribguard.models.swin_backbone` takes them: ``depths``, ``embed_dim``,
            ``num_heads``, ``img_size``, ``in_chans``, ``drop_path``.

    Returns:
        The network, from (N, in_chans, img_size, img_size) to (N, num_classes).

    Raises:
        AttribGuardError: as :func:`~attribguard.models.joint_classifier` and
            :func:`~attribguard.models.swin_backbone` do.

    Example:
        >>> import torch
        >>> model = joint_swin(img_size=32, depths=(1, 1), embed_dim=24, num_heads=(2, 4))
        >>> model(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 2])
    """
    if segmentation_encoder is None:
        segmentation_encoder = swin_backbone(pretrained=pretrained, **options)
    return joint_classifier(segmentation_encoder, swin_backbone(pretrained=pretrained, **options), num_classes)
