"""The decoder of convolutions: from the maps of an encoder back to an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribguard.errors import ShapeError, check_choice
from attribguard.models.checks import Norm, check_list, check_norm, check_whole
from attribguard.models.double_convolution import double_convolution, run

__all__ = ["ConvDecoder"]


class ConvDecoder(nn.Module):
    """The mirror image of a convolutional encoder: at each level upsampling, then two 3x3 convolutions with ReLUs.

    Source: Viviano et al., Figure 2 and Appendix B: the autoencoder (``skips=False``) and the UNet (``skips=True``)
    share the encoder of :func:`attribguard.models.actdiff_cnn`, and in the decoder "upsampling was applied using
    bilinear interpolation before each double convolution". ``upsampling="transposed"`` is the 2x2 up-convolution of
    Ronneberger et al. 2015, which also halves the channels. The paper leaves open, and we chose: the mirrored widths,
    concatenation of the encoder's map behind the upsampling as in Ronneberger et al., a 1x1 convolution at the end. It
    gives logits; the sigmoid that the paper applies to binary images belongs to the loss.

    Maps whose sides are not halved exactly (28, 14, 7 and 3 pixels) fit all the same: each is brought to the next
    finer one's size bilinearly.

    Args:
        channels: of the encoder's maps, the finest first, each 1 or more.
        out_channels: of the image that is drawn, or classes of a segmentation; 1 or more.
        skips: whether the finer maps are read. Otherwise only their sizes are, and everything comes from the coarsest.
        norm: ``"none"``, the paper's, or ``"batch"``: BatchNorm before each ReLU, which in train mode lets the images
            of a batch change each other's result.
        upsampling: ``"bilinear"`` or ``"transposed"``.

    Raises:
        RangeError: if a number is not whole or too small, or an option unknown.

    Example:
        >>> decoder = ConvDecoder([16, 32, 64, 128], 1, skips=True)
        >>> sides = {16: 28, 32: 14, 64: 7, 128: 3}
        >>> decoder([torch.rand(4, channels, side, side) for channels, side in sides.items()]).shape
        torch.Size([4, 1, 28, 28])
    """

    def __init__(
        self,
        channels: Sequence[int],
        out_channels: int,
        *,
        skips: bool,
        norm: Norm = "none",
        upsampling: Literal["bilinear", "transposed"] = "bilinear",
    ) -> None:
        super().__init__()
        check_list(channels=channels)
        check_whole(out_channels=out_channels)
        check_norm(norm)
        check_choice("upsampling", upsampling, ("bilinear", "transposed"))
        self.channels, self.skips, self.grad_checkpointing = tuple(channels), skips, False
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for coarse, fine in zip(self.channels[:0:-1], self.channels[-2::-1], strict=True):
            transposed = upsampling == "transposed"
            self.ups.append(nn.ConvTranspose2d(coarse, fine, 2, stride=2) if transposed else nn.Identity())
            entering = (fine if transposed else coarse) + (fine if skips else 0)
            self.blocks.append(double_convolution(entering, fine, norm))
        self.out = nn.Conv2d(self.channels[0], out_channels, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Draw.

        Args:
            maps: (N, C_i, h_i, w_i) each, the finest first; without skips too, for their sizes.

        Returns:
            (N, out_channels, h_0, w_0), unbounded.

        Raises:
            ShapeError: if the maps are not those that the decoder was built for.
        """
        given = tuple(features.shape[1] for features in maps)
        if given != self.channels:
            raise ShapeError(
                got=f"maps of {given} channels",
                needed=f"{self.channels}, the finest map first",
                fix="pass every map of the encoder, or build the decoder for these",
            )
        *finer, x = maps
        for up, block, fine in zip(self.ups, self.blocks, reversed(finer), strict=True):
            x = up(x)
            if x.shape[-2:] != fine.shape[-2:]:
                x = F.interpolate(x, size=fine.shape[-2:], mode="bilinear", align_corners=False)
            x = run(block, torch.cat([fine, x], 1) if self.skips else x, self.grad_checkpointing)
        drawn: Tensor = self.out(x)
        return drawn

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each double convolution a second time in the backward pass, and keep less until then.

        Args:
            enable: whether to.
        """
        self.grad_checkpointing = enable
