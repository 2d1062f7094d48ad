"""One size for all images of a data set: asked for, brought about, and missed where files differ."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from attribguard.data.drawing import check_whole
from attribguard.errors import DataError
from attribguard.masks import resize

__all__ = ["Size", "as_size", "check_alike", "image_to_size", "mask_to_size"]

Size = int | tuple[int, int] | None


def as_size(size: Size) -> tuple[int, int] | None:
    """Refuse what is no size in pixels.

    Args:
        size: one number for squares, (H, W), or None.

    Returns:
        (H, W), or None.

    Raises:
        DataError: if a side is no whole number above 0.
    """
    size = (size, size) if isinstance(size, int) else size
    for side in size or ():
        check_whole("size", side, 1)
    return size


def image_to_size(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring an image (C, H, W) to (C, h, w): bilinearly, averaging where it shrinks; as it is if it has this size."""
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def mask_to_size(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a mask (1, H, W) to (1, h, w): relevant where half of a pixel is; as it is if it has this size."""
    return mask if tuple(mask.shape[1:]) == size else resize(mask[None], size, binary=True)[0]


def check_alike(
    what: str, found: Sequence[tuple[str, object]], in_what: str = "size", fix: str = "give size=(H, W)"
) -> None:
    """Refuse images that differ, of which no batch can be made.

    Args:
        what: the images, in one word.
        found: file and property of each, one or more.
        in_what: the property.
        fix: how to bring them to one.

    Raises:
        DataError: if two differ.
    """
    file, first = found[0]
    if other := next((one for one in found if one[1] != first), None):
        raise DataError(
            got=f"{what} that differ in {in_what}: {file} has {first} and {other[0]} {other[1]}",
            needed=f"one {in_what} for all, or else they make no batch",
            fix=fix,
        )
