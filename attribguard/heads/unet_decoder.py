"""The decoder that fits any network: U-Net style over a pyramid, plain upsampling over one map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attribguard.pyramid import Level

__all__ = ["UNetDecoder"]

_FULL_SIZE_WIDTH, _WIDEST, _NARROWEST, _GROUP = 16, 256, 16, 8


class UNetDecoder(nn.Module):
    """Double the map step by step up to the image's size; where the encoder has a map of that scale, join it.

    Each step is nearest-neighbour upsampling (whose gradient is deterministic on every device), concatenation and two
    3x3 convolutions, each with GroupNorm, which unlike BatchNorm leaves every image to itself, and ReLU. A step at
    stride s has min(16 s, 256) channels, and not more than the encoder there (but at least 16).

    Source: Ronneberger et al. 2015, for the skips. Departures: padded convolutions, normalisation, narrower; the
    coarsest map is the encoder's own.

    Args:
        levels: the maps it will read, the finest first; one for plain upsampling.
        out_channels: of the result.

    Example:
        >>> decoder = UNetDecoder([Level("a", 8, (8, 8), 2), Level("b", 16, (4, 4), 3)], 3)
        >>> decoder([torch.zeros(1, 8, 8, 8), torch.zeros(1, 16, 4, 4)]).shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(self, levels: Sequence[Level], out_channels: int) -> None:
        super().__init__()
        *skips, deepest = levels
        width, octave, blocks = deepest.channels, deepest.octave, []
        for skip in reversed(skips):
            inside = _width(skip.octave, skip.channels)
            blocks.append(_block(width + skip.channels, inside))
            width, octave = inside, skip.octave
        self.skips = len(blocks)
        for finer in reversed(range(octave)):
            inside = _width(finer, width)
            blocks.append(_block(width, inside))
            width = inside
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Conv2d(width, out_channels, 1)
        self.checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each step in the backward pass instead of keeping it: less memory, more time."""
        self.checkpointing = enable

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Draw.

        Args:
            maps: (N, C, h, w) each, the finest first, at the levels' scales.

        Returns:
            (N, K, h, w), of the finest level's size doubled as often as that was halved.
        """
        *skips, x = maps
        for i, block in enumerate(self.blocks):
            if i < self.skips:
                skip = skips[-1 - i]
                x = torch.cat([F.interpolate(x, size=skip.shape[-2:]), skip], 1)
            else:
                x = F.interpolate(x, scale_factor=2)
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
        out: Tensor = self.out(x)
        return out


def _width(octave: int, channels: int) -> int:
    return min(_FULL_SIZE_WIDTH << octave, _WIDEST, max(channels, _NARROWEST))


def _block(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for entering in (channels_in, channels):
        groups = channels // _GROUP if channels % _GROUP == 0 else 1
        convolution = nn.Conv2d(entering, channels, 3, padding=1, bias=False)
        layers += [convolution, nn.GroupNorm(groups, channels), nn.ReLU()]
    return nn.Sequential(*layers)
