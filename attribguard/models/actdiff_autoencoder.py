"""The ActDiff paper's network with a reconstruction path: its autoencoder and its UNet."""

from __future__ import annotations

from typing import Any, Literal

from attribguard.guard import Guard
from attribguard.heads import ReconstructionHead
from attribguard.models.actdiff_cnn import actdiff_cnn
from attribguard.models.conv_decoder import ConvDecoder
from attribguard.wrapping import wrap

__all__ = ["actdiff_autoencoder", "actdiff_unet"]


def actdiff_autoencoder(
    num_classes: int = 2,
    in_chans: int = 1,
    *,
    img_size: int = 28,
    channels: int = 16,
    norm: Literal["none", "batch"] = "none",
    skips: bool = False,
    loss: Literal["mse", "bce"] = "bce",
    target: Literal["input", "masked"] = "input",
    weight: float = 10.0,
    **wrap_options: Any,
) -> Guard:
    """A guard over :func:`actdiff_cnn` that also draws the image again from the deepest map.

    Source: Viviano et al., Section 3 and Appendix B: "Conv AE". The decoder mirrors the encoder; ActDiff sees the
    encoder alone, as in the paper. "For reconstruction, the binary cross entropy loss was used as the input images were
    binary", with a weight of 10; ``loss="mse"`` is for other images, ``target="masked"`` is *Reconstruct Masked*.

    Args:
        num_classes: as in :func:`actdiff_cnn`, like what follows.
        in_chans: channels of the images.
        img_size: height and width of the images in pixels.
        channels: of the first block.
        norm: ``"none"``, the paper's network, or ``"batch"``, in encoder and decoder.
        skips: whether the decoder joins the encoder's maps.
        loss: of the reconstruction, see :class:`attribguard.ReconstructionHead`.
        target: of the reconstruction.
        weight: of the reconstruction, 0 or more.
        **wrap_options: for :func:`attribguard.wrap`: penalties, criterion, further heads.

    Returns:
        The guard; its head is ``"reconstruction"``.

    Raises:
        RangeError: if a number is not whole or too small, or an option unknown.

    Example:
        >>> import torch
        >>> guard = actdiff_autoencoder(channels=4)
        >>> guard.predict(torch.rand(2, 1, 28, 28)).predictions["reconstruction"].shape
        torch.Size([2, 1, 28, 28])
    """
    encoder = actdiff_cnn(num_classes, in_chans, img_size=img_size, channels=channels, norm=norm)
    decoder = ConvDecoder([channels << i for i in range(4)], in_chans, skips=skips, norm=norm)
    blocks = [f"block{number}" for number in range(1, 5)]
    head = ReconstructionHead(weight, loss=loss, target=target, decoder=decoder, layers=blocks)
    heads = [head, *wrap_options.pop("heads", ())]
    return wrap(encoder, heads=heads, example_input=(in_chans, img_size, img_size), **wrap_options)


def actdiff_unet(num_classes: int = 2, in_chans: int = 1, **options: Any) -> Guard:
    """:func:`actdiff_autoencoder` with ``skips=True``: the paper's "UNet".

    Args:
        num_classes: number of logits, 1 or more.
        in_chans: channels of the images.
        **options: as :func:`actdiff_autoencoder` takes them.

    Returns:
        The guard; its head is ``"reconstruction"``.

    Raises:
        RangeError: if a number is not whole or too small, or an option unknown.

    Example:
        >>> actdiff_unet(channels=4).layers["reconstruction"]
        ('block1', 'block2', 'block3', 'block4')
    """
    return actdiff_autoencoder(num_classes, in_chans, skips=True, **options)
