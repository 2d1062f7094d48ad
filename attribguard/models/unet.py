"""The U-Net of Ronneberger et al., a network for segmentation alone."""

from __future__ import annotations

from torch import Tensor, nn

from attribguard.errors import ShapeError
from attribguard.models.checks import Norm, check_norm, check_whole
from attribguard.models.conv_decoder import ConvDecoder
from attribguard.models.double_convolution import double_convolution, run

__all__ = ["UNet", "unet"]


def unet(num_classes: int = 2, in_chans: int = 3, *, channels: int = 64, depth: int = 5, norm: Norm = "batch") -> UNet:
    """The segmentation baseline of Hirata and Okita, Table 1.

    Source: Ronneberger et al. 2015, Section 2: at each level two 3x3 convolutions with ReLUs, downward 2x2 max pooling
    and twice the channels, upward a 2x2 up-convolution to half the channels and concatenation with the map of the same
    level, last a 1x1 convolution; Section 3: weights from a normal distribution of variance 2 / fan-in. Hirata and
    Okita say nothing more of theirs.

    Departures. (1) The convolutions are padded, so that the logits have the image's size; there they lose a border and
    the skips are cropped. (2) ``norm="batch"`` puts BatchNorm before each ReLU; ``"none"`` is the paper's. (3) Sides
    that cannot be halved exactly are allowed. (4) No dropout at the end of the downward path.

    Args:
        num_classes: classes of the segmentation, 1 or more.
        in_chans: channels of the images, 1 or more.
        channels: of the first level, 1 or more; each further level has twice as many.
        depth: number of levels, 2 or more.
        norm: ``"batch"`` or ``"none"``.

    Returns:
        A network from (N, in_chans, H, W) to logits (N, num_classes, H, W); H and W at least 2 to the (depth - 1).

    Raises:
        RangeError: if a number is not whole or too small, or ``norm`` unknown.

    Example:
        >>> import torch
        >>> unet(channels=4)(torch.rand(2, 3, 33, 50)).shape
        torch.Size([2, 2, 33, 50])
    """
    check_whole(num_classes=num_classes, in_chans=in_chans, channels=channels)
    check_whole(2, depth=depth)
    check_norm(norm)
    return UNet(num_classes, in_chans, [channels << level for level in range(depth)], norm)


class UNet(nn.Module):
    """What :func:`unet` builds.

    Args:
        num_classes: classes of the segmentation.
        in_chans: channels of the images.
        widths: channels of the levels, the finest first.
        norm: ``"batch"`` or ``"none"``.
    """

    def __init__(self, num_classes: int, in_chans: int, widths: list[int], norm: Norm) -> None:
        super().__init__()
        entering = [in_chans, *widths[:-1]]
        self.encoder = nn.ModuleList(map(double_convolution, entering, widths, [norm] * len(widths)))
        self.pool, self.grad_checkpointing = nn.MaxPool2d(2), False
        self.decoder = ConvDecoder(widths, num_classes, skips=True, norm=norm, upsampling="transposed")
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: (N, C, H, W) images.

        Returns:
            (N, K, H, W), logits.

        Raises:
            ShapeError: if the images are smaller than one cell of the coarsest level.
        """
        cell = 1 << (len(self.encoder) - 1)
        if min(x.shape[-2:]) < cell:
            raise ShapeError(
                got=f"images of {x.shape[-2]}x{x.shape[-1]} pixels",
                needed=f"{cell}x{cell} or more",
                fix="pass larger images, or build the network with a smaller depth",
            )
        maps: list[Tensor] = []
        for block in self.encoder:
            maps.append(run(block, self.pool(maps[-1]) if maps else x, self.grad_checkpointing))
        segmented: Tensor = self.decoder(maps)
        return segmented

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each double convolution a second time in the backward pass, and keep less until then.

        Args:
            enable: whether to.
        """
        self.grad_checkpointing = enable
        self.decoder.set_grad_checkpointing(enable)
