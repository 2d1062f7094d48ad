"""Annotated regions in whatever form they come, as one mask an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.masks import from_boxes, inside

__all__ = ["Boxes", "Region", "as_region"]

Boxes = Tensor | Sequence[Sequence[float]]
Region = Tensor | Sequence[Boxes]


def as_region(region: Region, like: Tensor) -> Tensor:
    """Make one mask an image of masks or boxes.

    Args:
        region: one of

            - a mask (N, H, W) or (N, 1, H, W), bool or in [0, 1], inside where 0.5 or more;
            - a box tensor, (N, 4) for one box an image or (N, B, 4) for several;
            - a list of N entries, each the boxes of one image: (B, 4) as a tensor or nested lists, or empty.

            A box is ``(x0, y0, x1, y1)`` in pixels of the map, columns ``x0`` to ``x1 - 1``, see
            :func:`attribguard.masks.from_boxes`. Several boxes of an image are one region, their union.
        like: (N, H, W), the maps. A tensor of their own shape is a mask.

    Returns:
        (N, H, W) bool on the maps' device; all False for an image without a region.

    Raises:
        ShapeError: if the number of images or the size differs.
        TypeMismatchError: if this is neither a mask nor boxes.
        RangeError: if a box is turned round, empty, not finite or reaches outside the image, if it is too small to hold
            the centre of a pixel, or if a mask leaves [0, 1].

    Example:
        >>> as_region([[[0, 0, 2, 1]], []], torch.zeros(2, 1, 3))
        tensor([[[ True,  True, False]],
                [[False, False, False]]])
    """
    n, height, width = like.shape
    if isinstance(region, Tensor):
        if region.shape in (like.shape, (n, 1, height, width)):
            return _from_mask(region.reshape(like.shape)).to(like.device)
        if region.shape[-1:] != (4,) or region.dim() not in (2, 3):
            raise ShapeError(
                got=f"a region of shape {tuple(region.shape)} for maps of shape {tuple(like.shape)}",
                needed=f"a mask of that shape, or boxes ({n}, 4) or ({n}, B, 4)",
                fix="bring the mask to the map's size, or ask for maps of the image's size",
            )
        boxes = list((region[:, None] if region.dim() == 2 else region).cpu())
    else:
        boxes = [_as_boxes(entry, i) for i, entry in enumerate(_as_list(region))]
    if len(boxes) != n:
        raise ShapeError(
            got=f"boxes of {len(boxes)} images for {n} maps",
            needed=f"{n}",
            fix="give an empty list where there is none",
        )
    masks = inside(from_boxes(boxes, (height, width)).view(n, height, width))
    filled = masks.flatten(1).any(1).tolist()
    for i, image_boxes in enumerate(boxes):
        if image_boxes.numel() and not filled[i]:
            raise RangeError(
                got=f"boxes {image_boxes.tolist()} of image {i}",
                needed="a box that holds the centre of a pixel",
                fix="give boxes in pixels of the map, or leave this one out",
            )
    return masks.to(like.device)


def _from_mask(mask: Tensor) -> Tensor:
    # Written so that NaN fails it.
    if mask.is_complex() or not bool(((mask >= 0) & (mask <= 1)).all()):
        raise RangeError(
            got="a mask with values outside [0, 1]", needed="1 = inside, no NaN", fix="divide 0 and 255 by 255"
        )
    return inside(mask)


def _as_list(region: Any) -> Sequence[Any]:
    if isinstance(region, Sequence) and not isinstance(region, str):
        return region
    raise TypeMismatchError(
        got=f"a region of {type(region).__name__}",
        needed="a mask, a box tensor, or a list of the boxes of each image",
        fix="use torch.as_tensor for an array",
    )


def _as_boxes(entry: Any, image: int) -> Tensor:
    try:
        boxes = torch.as_tensor(entry).cpu()
    except (TypeError, ValueError, RuntimeError):
        boxes = None
    if boxes is None or boxes.is_complex() or (boxes.numel() and (boxes.dim() != 2 or boxes.shape[1] != 4)):
        form = "that are no table of numbers" if boxes is None else f"of shape {tuple(boxes.shape)}"
        raise ShapeError(
            got=f"boxes {form} for image {image}",
            needed="(B, 4), or an empty list",
            fix="give each box as (x0, y0, x1, y1), in a list even where there is one",
        )
    return boxes
