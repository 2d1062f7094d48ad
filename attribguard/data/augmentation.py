"""Images, their masks and their boxes turned and mirrored alike."""

from __future__ import annotations

import math
from typing import overload

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.errors import ShapeError, TypeMismatchError

__all__ = ["augment"]

_CHANCE = 0.5
_MOST = 20.0  # degrees


@overload
def augment(
    image: Tensor, mask: Tensor, boxes: None = None, *, fill: float = ..., generator: torch.Generator | None = ...
) -> tuple[Tensor, Tensor]: ...
@overload
def augment(
    image: Tensor, mask: Tensor, boxes: Tensor, *, fill: float = ..., generator: torch.Generator | None = ...
) -> tuple[Tensor, Tensor, Tensor]: ...
def augment(
    image: Tensor,
    mask: Tensor,
    boxes: Tensor | None = None,
    *,
    fill: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, ...]:
    """Turn and mirror an image at random, and its mask and boxes with it.

    With a chance of one half, a turn by 0, 90, 180 or 270 degrees and then a flip, up-down or left-right with equal
    chance; and independently, with a chance of one half, a turn by an angle between -20 and 20 degrees about the
    centre. A quarter of all images stay as they are.

    Source: MTL-Swin-Unet, "Settings of the Learner", which can also be read as a flip that does not always follow the
    quarter turn. Images are interpolated bilinearly and masks take the nearest pixel, which the paper does not say.
    Departure: images that are not square are turned by 0 or 180 degrees only, and keep their shape.

    A turn by an angle brings corners into the image that were outside: they are ``fill`` in the image and irrelevant
    in the mask, also in one that was all relevant. A box becomes the smallest upright one around its turned corners,
    cut at the image's edges, so it grows. A box of no area, such as those that fill up a batch, and one that leaves
    the image become four zeros.

    Args:
        image: (C, H, W), floating point.
        mask: (1, H, W), floating point, 1 = relevant.
        boxes: (B, 4), (x0, y0, x1, y1) in pixels.
        fill: what comes into the image's corners: the value of air for CT in Hounsfield units, -1000.
        generator: of the random numbers, five for each call whatever they decide; torch's own by default, which
            differs between the workers of a ``DataLoader``.

    Returns:
        Image and mask, and boxes if there were any, of the same shapes and types.

    Raises:
        ShapeError: if one of the three has another shape.
        TypeMismatchError: if one of them is not of floating point.

    Example:
        >>> image = torch.arange(4.0).view(1, 2, 2)
        >>> turned, mask = augment(image, (image > 2).float(), generator=torch.Generator().manual_seed(10))
        >>> turned, mask  # a quarter to the left, then up-down
        (tensor([[[0., 2.],
                  [1., 3.]]]), tensor([[[0., 0.],
                  [0., 1.]]]))
    """
    _check(image, mask, boxes)
    height, width = image.shape[-2:]
    turn_chance, quarter, flip, angle_chance, angle = torch.rand(5, generator=generator).tolist()
    areas = None if boxes is None else (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if turn_chance < _CHANCE:
        quarters = int(4 * quarter) if height == width else 2 * int(2 * quarter)
        axis = -2 if flip < 0.5 else -1
        image, mask = (torch.rot90(picture, quarters, (-2, -1)).flip(axis) for picture in (image, mask))
        boxes = None if boxes is None else _turn_boxes(boxes, quarters, axis, height, width)
    if angle_chance < _CHANCE:
        radians = math.radians(_MOST * (2 * angle - 1))
        image = _rotate(image - fill, radians, "bilinear") + fill
        mask = _rotate(mask, radians, "nearest")
        boxes = None if boxes is None else _rotate_boxes(boxes, radians, height, width)
    if boxes is None or areas is None:
        return image, mask
    left = areas & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return image, mask, boxes * left[:, None]


def _turn_boxes(boxes: Tensor, quarters: int, axis: int, height: int, width: int) -> Tensor:
    for _ in range(quarters):
        # A quarter turn to the left takes (x, y) to (y, width - x).
        x0, y0, x1, y1 = boxes.unbind(1)
        boxes = torch.stack([y0, width - x1, y1, width - x0], 1)
        height, width = width, height
    x0, y0, x1, y1 = boxes.unbind(1)
    flipped = [x0, height - y1, x1, height - y0] if axis == -2 else [width - x1, y0, width - x0, y1]
    return torch.stack(flipped, 1)


def _rotate(picture: Tensor, radians: float, mode: str) -> Tensor:
    """About the centre, clockwise as one looks at it; zeros come into the corners."""
    height, width = picture.shape[-2:]
    cos, sin = math.cos(radians), math.sin(radians)
    # Where each pixel comes from, in units of half the image's width and height.
    back = torch.tensor([[cos, sin * height / width, 0.0], [-sin * width / height, cos, 0.0]], dtype=picture.dtype)
    grid = F.affine_grid(back[None].to(picture.device), [1, *picture.shape], align_corners=False)
    return F.grid_sample(picture[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def _rotate_boxes(boxes: Tensor, radians: float, height: int, width: int) -> Tensor:
    cos, sin = math.cos(radians), math.sin(radians)
    x, y = boxes[:, [0, 2, 2, 0]] - width / 2, boxes[:, [1, 1, 3, 3]] - height / 2
    across, down = cos * x - sin * y + width / 2, sin * x + cos * y + height / 2
    across, down = across.clamp(0, width), down.clamp(0, height)
    return torch.stack([across.amin(1), down.amin(1), across.amax(1), down.amax(1)], 1)


def _check(image: Tensor, mask: Tensor, boxes: Tensor | None) -> None:
    shapes = f"image {tuple(image.shape)}, mask {tuple(mask.shape)}"
    shapes += "" if boxes is None else f", boxes {tuple(boxes.shape)}"
    if image.dim() != 3 or mask.shape != (1, *image.shape[1:]) or (boxes is not None and boxes.shape[1:] != (4,)):
        raise ShapeError(got=shapes, needed="(C, H, W), (1, H, W) and (B, 4)", fix="augment one item at a time")
    types = [tensor.dtype for tensor in (image, mask, boxes) if tensor is not None]
    if not all(dtype.is_floating_point for dtype in types):
        raise TypeMismatchError(got=f"tensors of {types}", needed="floating point", fix="convert: .float()")
