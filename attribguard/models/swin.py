"""Swin Transformers in the sizes of Swin-Unet, with pretrained weights where they exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
from torch import nn

from attribguard.errors import RangeError, check_choice
from attribguard.functional.checks import check_number
from attribguard.models.checks import check_list, check_whole
from attribguard.models.pretrained import copy_pretrained

__all__ = ["swin_backbone"]

_PATCH = 4
# By width: the published network that contains the paper's, "tiny" or "base".
_PRETRAINED = {96: "swin_tiny_patch4_window7_224", 128: "swin_base_patch4_window7_224"}


def swin_backbone(
    num_classes: int = 0,
    *,
    depths: Sequence[int] = (2, 2, 2, 2),
    embed_dim: int = 96,
    num_heads: Sequence[int] = (3, 6, 12, 24),
    window_size: int = 7,
    img_size: int | Sequence[int] = 224,
    in_chans: int = 3,
    drop_path: float = 0.2,
    pretrained: bool = False,
    **weights: Any,
) -> nn.Module:
    """A timm Swin Transformer in the sizes of Swin-Unet, with patches of 4 pixels.

    Source: Cao et al. 2021 and Hirata and Okita, whose default has two blocks in the third stage, fewer than any
    published Swin Transformer. Pretrained weights are those of swin-tiny, for ``embed_dim=128`` of swin-base; each
    stage takes the first of its blocks there.

    Args:
        num_classes: number of logits; 0 gives the pooled features.
        depths: blocks of each stage, 1 or more.
        embed_dim: channels of the first stage; each further stage has twice as many.
        num_heads: attention heads of each stage.
        window_size: of the attention, in patches.
        img_size: of the images in pixels, a multiple of 4; or height and width.
        in_chans: channels of the images.
        drop_path: stochastic depth of the last block, rising linearly from 0; 0 or more, below 1.
        pretrained: whether to start from timm's ImageNet weights, which are downloaded.
        weights: where those come from: ``pretrained_cfg``, ``pretrained_cfg_overlay`` or ``cache_dir`` of
            ``timm.create_model``.

    Returns:
        A ``timm.models.swin_transformer.SwinTransformer`` from (N, in_chans, H, W) to (N, num_classes).

    Raises:
        RangeError: if an argument is out of its range, or no pretrained network has this width.
        ModelError: if the pretrained network has fewer blocks, or other heads.

    Example:
        >>> import torch
        >>> model = swin_backbone(2, img_size=32, depths=(1, 1), embed_dim=24, num_heads=(2, 4))
        >>> model(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 2])
    """
    check_whole(0, num_classes=num_classes)
    check_whole(embed_dim=embed_dim, window_size=window_size, in_chans=in_chans)
    sides = (img_size, img_size) if isinstance(img_size, int) else img_size
    check_list(depths=depths, num_heads=num_heads, img_size=sides)
    check_number("drop_path", drop_path, "0 or more and below 1", lambda value: 0 <= value < 1)
    if len(sides) != 2 or any(side % _PATCH for side in sides):
        needed = f"a multiple of {_PATCH}, or two of them"
        raise RangeError(got=f"img_size={img_size!r}", needed=needed, fix="resize the images")
    if len(depths) != len(num_heads) or any((embed_dim << i) % heads for i, heads in enumerate(num_heads)):
        raise RangeError(
            got=f"depths={depths!r}, embed_dim={embed_dim} and num_heads={num_heads!r}",
            needed="one number of heads a stage, which divides the channels there",
            fix="choose others",
        )
    if pretrained:
        check_choice("embed_dim", embed_dim, tuple(_PRETRAINED))
    name = _PRETRAINED.get(embed_dim, _PRETRAINED[96])
    options: dict[str, Any] = {"img_size": tuple(sides), "in_chans": in_chans, "window_size": window_size, **weights}
    sizes: dict[str, Any] = {"depths": tuple(depths), "embed_dim": embed_dim, "num_heads": tuple(num_heads)}
    model: nn.Module = timm.create_model(name, num_classes=num_classes, drop_path_rate=drop_path, **sizes, **options)
    if pretrained:
        # With its own classes, so that timm makes sure that the file holds every tensor.
        source: Any = timm.create_model(name, pretrained=True, **options)
        source.reset_classifier(0)
        for stage, depth in zip(source.layers, depths, strict=False):
            stage.blocks = stage.blocks[:depth]
        copy_pretrained(source, model, unused=lambda key: False, fresh=lambda key: key.startswith("head."))
    return model
