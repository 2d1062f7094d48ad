"""The decoder of Swin-Unet: the mirror image of a Swin Transformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attribguard.errors import ModelError, RangeError, ShapeError
from attribguard.functional.checks import is_whole
from attribguard.heads.swin_stages import check_encoder, mirrored_stage, norms_like

__all__ = ["SwinDecoder", "find_swin"]

_PARTS = 8


class SwinDecoder(nn.Module):
    """Decode the maps of a timm Swin Transformer into one value a class and pixel.

    From the coarsest map upward, once for each finer one: expand to twice the size and half the channels, concatenate
    the encoder's map behind it, a linear layer from 2C back to C channels, the blocks that mirror that stage of the
    encoder. Then a norm, the expansion from patches to pixels, and a 1x1 convolution.

    Source: Cao et al., "Swin-Unet: Unet-like Pure Transformer for Medical Image Segmentation" (2021), as their
    published code computes it; Hirata and Okita use it for segmentation and for reconstruction. What the code has and
    the paper leaves out: the encoder's maps enter *before* a stage's blocks; the coarsest stage has no blocks in the
    decoder; the depths are the encoder's. Departures. (1) The last LayerNorm and the 1x1 convolution come before the
    pixels are laid out, which is the same up to rounding and moves ``out_channels`` values a pixel instead of C;
    without a graph they go over an eighth of the rows at a time, which takes an eighth of the memory.
    (2) The number of stages, the patch size and the images' height and width follow the encoder. (3) Windows, heads,
    the width of the MLPs, dropout, drop-path rates and the norms' type and eps are read off the encoder's own blocks.

    Linear layers start from a truncated normal of standard deviation 0.02 and zero biases, as timm's Swin does; the
    1x1 convolution as PyTorch does, like the published code's. :meth:`mirror_` starts the blocks from the encoder's.

    Args:
        encoder: a timm Swin Transformer of two stages or more; it is read, not kept.
        out_channels: classes of a segmentation, or channels of the image to reconstruct; 1 or more.

    Raises:
        TypeMismatchError: if the encoder is no timm Swin Transformer.
        ModelError: if it has fewer than two stages, or a stage without blocks.
        ShapeError: if its images' sides cannot be halved as often as the encoder does: with patches of 4 pixels and
            four stages they have to be divisible by 32.
        RangeError: if ``out_channels`` is no whole number of 1 or more.

    Example:
        >>> encoder = SwinTransformer(img_size=64, window_size=4, embed_dim=24, depths=(2, 2, 2, 2))
        >>> places = SwinDecoder.places("", encoder)
        >>> places
        ('patch_embed', 'layers.1.downsample', 'layers.2.downsample', 'norm')
        >>> maps = []
        >>> for place in places:
        ...     keep = lambda module, args, output: maps.append(output.permute(0, 3, 1, 2))
        ...     _ = encoder.get_submodule(place).register_forward_hook(keep)
        >>> _ = encoder(torch.rand(1, 3, 64, 64))
        >>> SwinDecoder(encoder, out_channels=2)(maps).shape
        torch.Size([1, 2, 64, 64])
    """

    def __init__(self, encoder: SwinTransformer, out_channels: int) -> None:
        super().__init__()
        check_encoder(encoder)
        if not is_whole(out_channels, 1):
            needed = "a whole number, 1 or more"
            raise RangeError(got=f"out_channels={out_channels!r}", needed=needed, fix="give the number of classes")
        embedding: Any = encoder.patch_embed
        stages: list[Any] = list(encoder.layers)
        patch, grid = embedding.patch_size, embedding.grid_size
        self._widths = widths = [stage.blocks[0].dim for stage in stages]
        halvings = len(stages) - 1
        # An encoder for images of any size has no fixed grid; its blocks, and those made after them, look at each map.
        fixed = embedding.strict_img_size
        self._coarsest = (grid[0] >> halvings, grid[1] >> halvings) if fixed else None

        norm = norms_like(stages[0].blocks[0].norm1)
        upward = range(halvings - 1, -1, -1)
        self.up = nn.ModuleList(_Expand(widths[i + 1], widths[i], (2, 2), norm) for i in upward)
        self.fuse = nn.ModuleList(nn.Linear(2 * widths[i], widths[i]) for i in upward)
        self.stages = nn.ModuleList(mirrored_stage(stages[i]) for i in upward)
        self.norm = norm(widths[0])
        self.final = _Expand(widths[0], widths[0], patch, norm)
        self.out = nn.Conv2d(widths[0], out_channels, 1, bias=False)
        self.grad_checkpointing = False
        self.apply(_initialise)

    @staticmethod
    def places(name: str, encoder: SwinTransformer) -> tuple[str, ...]:
        """Where in a network the maps are found, from the finest to the coarsest.

        They are what enters each stage's blocks, not what the stages give out; the last are the normed features.

        Args:
            name: of the encoder in the network, as :func:`find_swin` gives it; empty if it is the network.
            encoder: a timm Swin Transformer of two stages or more.

        Returns:
            Names of modules, each of whose outputs (N, h, w, C) is one map.
        """
        inner = ("patch_embed", *(f"layers.{i}.downsample" for i in range(1, len(encoder.layers) - 1)), "norm")
        return tuple(f"{name}.{place}" if name else place for place in inner)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Decode.

        Args:
            maps: (N, C_i, h_i, w_i) each, from the finest to the coarsest, as :meth:`places` lists them; views of
                channels-last tensors cost nothing.

        Returns:
            (N, out_channels, H, W) at the images' size, channels last in memory.

        Raises:
            ShapeError: if the maps are not those of the encoder that the decoder was built for.
        """
        self._check_maps(maps)
        *skips, x = (features.permute(0, 2, 3, 1) for features in maps)
        for up, fuse, stage, skip in zip(self.up, self.fuse, self.stages, reversed(skips), strict=True):
            x = stage(fuse(torch.cat([_onto_grid(up(x)), skip], -1)))
        y: Tensor = checkpoint(self._pixels, x, use_reentrant=False) if self.grad_checkpointing else self._pixels(x)
        return y.permute(0, 3, 1, 2)

    def _pixels(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if torch.is_grad_enabled():
            return self._rows(x)
        # Where nothing is kept for a backward pass, the C values of each pixel need not stand there for all pixels.
        return torch.cat([self._rows(rows) for rows in x.split(max(1, x.shape[1] // _PARTS), 1)], 1)

    def _rows(self, x: Tensor) -> Tensor:
        return _onto_grid(F.linear(self.final(x), self.out.weight.flatten(1)))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep less from the forward pass, and compute the blocks and the pixels again in the backward pass.

        Args:
            enable: whether to.
        """
        self.grad_checkpointing = enable
        stage: Any
        for stage in self.stages:
            stage.grad_checkpointing = enable

    def mirror_(self, encoder: SwinTransformer) -> SwinDecoder:
        """Copy the encoder's blocks into those that mirror them, as Swin-Unet starts from a pretrained Swin.

        The encoder's last stage has no mirror image. Expansions, the linear layers behind the concatenations, the norm
        and the output stay as they are: 21 tensors with four stages.

        Args:
            encoder: of the sizes that the decoder was built for.

        Returns:
            The decoder itself.

        Raises:
            TypeMismatchError: if the encoder is no timm Swin Transformer.
            ModelError: if a size differs; nothing is copied then.
        """
        check_encoder(encoder)
        stages: list[Any] = list(self.stages)
        mirrored: list[Any] = list(encoder.layers)[-2::-1]
        if [_shapes(stage.blocks) for stage in stages] != [_shapes(stage.blocks) for stage in mirrored]:
            raise ModelError(
                got="an encoder whose stages have other sizes than the decoder's",
                needed="the depths, widths, heads and windows that the decoder was built for",
                fix="build the decoder from this encoder",
            )
        for stage, source in zip(stages, mirrored, strict=True):
            stage.blocks.load_state_dict(source.blocks.state_dict())
        return self

    def _check_maps(self, maps: list[Tensor]) -> None:
        got = [tuple(features.shape) for features in maps]
        n, _, *size = got[-1] if got and len(got[-1]) == 4 else (1, 0, 1, 1)
        height, width = self._coarsest or size
        times = [2**i for i in range(len(self._widths))][::-1]
        needed = [(n, c, height * t, width * t) for c, t in zip(self._widths, times, strict=True)]
        if got != needed:
            raise ShapeError(
                got=f"maps of shapes {got}",
                needed=f"maps of shapes {needed}",
                fix="pass the maps that SwinDecoder.places names, of images of the size that the encoder was built for",
            )


class _Expand(nn.Module):
    """Each token becomes p x q tokens: (N, h, w, C) to (N, h, w, p, q, C_out), normed; `_onto_grid` lays them out."""

    def __init__(self, channels: int, out_channels: int, by: tuple[int, int], norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.by = by
        self.expand = nn.Linear(channels, by[0] * by[1] * out_channels, bias=False)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.expand(x).unflatten(-1, (*self.by, -1)))
        return y


def _onto_grid(tokens: Tensor) -> Tensor:
    """(N, h, w, p, q, C) to (N, h p, w q, C)."""
    return tokens.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def find_swin(model: nn.Module) -> tuple[str, SwinTransformer]:
    """Find the timm Swin Transformer in a network.

    Args:
        model: the network, which may be one itself.

    Returns:
        Its name in the network, empty if it is the network, and the module.

    Raises:
        ModelError: if there is none, or more than one.

    Example:
        >>> swin = SwinTransformer(img_size=32, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2))
        >>> find_swin(nn.Sequential(swin))[0]
        '0'
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, SwinTransformer)]
    if len(found) != 1:
        raise ModelError(
            got=f"a network with {len(found)} of timm's Swin Transformers: {[name for name, _ in found]}",
            needed="exactly one",
            fix="choose another decoder, or pass SwinDecoder(encoder, out_channels) of one of them with its places",
        )
    return found[0]
