"""What a decoder that mirrors a timm Swin Transformer reads off it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from timm.models.swin_transformer import SwinTransformer, SwinTransformerStage
from torch import nn

from attribguard.errors import ModelError, ShapeError, TypeMismatchError

__all__ = ["check_encoder", "mirrored_stage", "norms_like"]


def check_encoder(encoder: Any) -> None:
    """Refuse what cannot be mirrored.

    Args:
        encoder: a timm Swin Transformer, one hopes.

    Raises:
        TypeMismatchError: if it is none.
        ModelError: if it has fewer than two stages, or a stage without blocks.
        ShapeError: if its grid of patches cannot be halved as often as it has stages below the first.
    """
    if not isinstance(encoder, SwinTransformer):
        raise TypeMismatchError(
            got=f"an encoder of type {type(encoder).__name__}",
            needed="timm's SwinTransformer",
            fix="pass timm.create_model('swin_tiny_patch4_window7_224') or its like, not wrapped and not features_only",
        )
    stages: list[Any] = list(encoder.layers)
    depths = [len(stage.blocks) for stage in stages]
    if len(depths) < 2 or 0 in depths:
        needed = "two stages or more, each with blocks"
        raise ModelError(got=f"an encoder of depths {depths}", needed=needed, fix="build the encoder with other depths")
    embedding: Any = encoder.patch_embed
    times = 2 ** (len(depths) - 1)
    if embedding.strict_img_size and any(side % times for side in embedding.grid_size):
        height, width = embedding.img_size
        down, across = (side * times for side in embedding.patch_size)
        raise ShapeError(
            got=f"an encoder for images of {height} x {width} pixels",
            needed=f"a height divisible by {down} and a width divisible by {across}: the decoder doubles what "
            f"{len(depths)} stages have halved",
            fix="build the encoder with another img_size, or call its set_input_size first",
        )


def mirrored_stage(stage: Any) -> SwinTransformerStage:
    """Make a stage of new blocks, as many and of the same kind as another's, without its downsampling.

    Args:
        stage: of a timm Swin Transformer.

    Returns:
        From (N, h, w, C) to the same.
    """
    block = stage.blocks[0]
    heads, qkv = block.attn.num_heads, block.attn.qkv
    return SwinTransformerStage(
        block.dim,
        block.dim,
        block.input_resolution,
        len(stage.blocks),
        downsample=False,
        num_heads=heads,
        head_dim=qkv.out_features // (3 * heads),
        window_size=block.window_size,
        always_partition=block.always_partition,
        dynamic_mask=block.dynamic_mask,
        mlp_ratio=block.mlp_ratio,
        qkv_bias=qkv.bias is not None,
        proj_drop=block.attn.proj_drop.p,
        attn_drop=block.attn.attn_drop.p,
        # A rate of 0 leaves an Identity in the place of a DropPath.
        drop_path=[getattr(each.drop_path1, "drop_prob", 0.0) for each in stage.blocks],
        norm_layer=norms_like(block.norm1),  # type: ignore[arg-type]  # timm calls it, and no more
    )


def norms_like(norm: Any) -> Callable[[int], nn.Module]:
    """What makes norms of the same type and eps.

    Args:
        norm: a LayerNorm, or another norm with an ``eps``.

    Returns:
        A function from the number of channels to a new norm.
    """
    kind: Any = type(norm)
    return partial(kind, eps=norm.eps)
