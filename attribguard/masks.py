"""Masks of what is relevant: made, converted, dilated, resized. One polarity everywhere: 1 = relevant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.functional.checks import is_whole

__all__ = ["check_pixels", "circle", "dilate", "from_boxes", "from_irrelevant", "inside", "resize"]


def inside(mask: Tensor) -> Tensor:
    """Where a mask counts as relevant when a yes or no is needed: at 0.5 and above.

    Bilinear resizing leaves values such as 0.999, which a comparison with 1 would call irrelevant.

    Args:
        mask: any shape, in [0, 1].

    Returns:
        Boolean tensor of the same shape.

    Example:
        >>> inside(torch.tensor([0.0, 0.499, 0.5, 1.0])).tolist()
        [False, False, True, True]
    """
    return mask >= 0.5


def from_irrelevant(mask: Tensor) -> Tensor:
    """Turn an annotation of what is *irrelevant* (a ruler, a watermark, a decoy) into a mask of what is relevant.

    Args:
        mask: any shape, 1 = irrelevant, in [0, 1]; boolean and integer masks of 0 and 1 are accepted.

    Returns:
        Float tensor of the same shape, 1 = relevant.

    Example:
        >>> from_irrelevant(torch.tensor([[[1, 0], [0, 0]]]))
        tensor([[[0., 1.],
                 [1., 1.]]])
    """
    return 1 - (mask if mask.is_floating_point() else mask.float())


def from_boxes(boxes: Tensor | Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Fill boxes: one mask an image, 1 inside any of its boxes.

    Args:
        boxes: (N, 4), one box an image, or a sequence of N tensors (B_i, 4), several or no boxes an image. A box is
            ``(x0, y0, x1, y1)`` in pixels with ``x0 < x1 <= W`` and ``y0 < y1 <= H``: columns ``x0`` to ``x1 - 1``, as
            in array slicing. Fractions count where the pixel's centre lies inside, the left and upper edge included.
        size: (H, W) in pixels.

    Returns:
        (N, 1, H, W) float32, 0 or 1, on the boxes' device.

    Raises:
        ShapeError: if a box has not four coordinates.
        RangeError: if a box is empty, turned round, not finite, or reaches outside the image.

    Example:
        >>> from_boxes(torch.tensor([[1, 0, 3, 1]]), (2, 4))[0, 0]
        tensor([[0., 1., 1., 0.],
                [0., 0., 0., 0.]])
    """
    rows = list(boxes.unsqueeze(1)) if isinstance(boxes, Tensor) and boxes.dim() == 2 else list(boxes)
    if not rows:
        return torch.zeros(0, 1, *size)
    return torch.stack([_fill(image_boxes, size) for image_boxes in rows]).unsqueeze(1)


def _fill(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    if boxes.numel() == 0:
        return torch.zeros(height, width, device=boxes.device)
    if boxes.dim() != 2 or boxes.shape[-1] != 4:
        raise ShapeError(
            got=f"boxes of shape {tuple(boxes.shape)}",
            needed="(N, 4), or a sequence of N tensors (B, 4)",
            fix="give each box as (x0, y0, x1, y1)",
        )
    x0, y0, x1, y1 = boxes.double().unbind(-1)
    # Written so that NaN fails every comparison.
    good = (x0 >= 0) & (x0 < x1) & (x1 <= width) & (y0 >= 0) & (y0 < y1) & (y1 <= height)
    if not bool(good.all()):
        raise RangeError(
            got=f"box {boxes[~good][0].tolist()}",
            needed=f"0 <= x0 < x1 <= {width} and 0 <= y0 < y1 <= {height}",
            fix="give boxes as (x0, y0, x1, y1) in pixels of this image",
        )
    columns = torch.arange(width, device=boxes.device) + 0.5
    lines = torch.arange(height, device=boxes.device) + 0.5
    across = (columns >= x0[:, None]) & (columns < x1[:, None])
    down = (lines >= y0[:, None]) & (lines < y1[:, None])
    return (down[:, :, None] & across[:, None, :]).any(0).float()


def circle(size: tuple[int, int], radius: float | None = None) -> Tensor:
    """A disc around the image's centre: everything but the borders (Viviano et al., Section 6).

    Args:
        size: (H, W) in pixels.
        radius: in pixels; half of the shorter side by default.

    Returns:
        (1, 1, H, W) float32, 1 where a pixel's centre lies within ``radius`` of the image's centre; ``expand`` it to
        a batch.

    Raises:
        RangeError: if ``radius`` is not positive.

    Example:
        >>> circle((4, 4))[0, 0].sum()
        tensor(12.)
    """
    height, width = size
    radius = min(height, width) / 2 if radius is None else radius
    if not radius > 0:
        raise RangeError(got=f"radius={radius}", needed="a number above 0", fix="give the radius in pixels")
    y = torch.arange(height) + 0.5 - height / 2
    x = torch.arange(width) + 0.5 - width / 2
    return (y[:, None].square() + x.square() <= radius**2).float()[None, None]


def check_pixels(pixels: int) -> int:
    """Refuse what is no whole number of pixels, 0 or more.

    Args:
        pixels: a radius of dilation.

    Returns:
        The same number.

    Raises:
        TypeMismatchError: if it is not an integer.
        RangeError: if it is negative.
    """
    if not is_whole(pixels):
        raise TypeMismatchError(
            got=f"dilate={pixels!r}", needed="a whole number of pixels", fix="convert a sigma: int(4 * sigma + 0.5)"
        )
    if pixels < 0:
        raise RangeError(got=f"dilate={pixels}", needed="0 or more pixels", fix="leave it out for none")
    return pixels


def dilate(mask: Tensor, pixels: int | None = None, *, sigma: float | None = None) -> Tensor:
    r"""Grow the relevant region by a square of ``2 * pixels + 1`` pixels, so that it keeps some context.

    Viviano et al. say "blurred with :math:`\sigma`"; their code blurs with a Gaussian cut off at four standard
    deviations and keeps everything above zero, which is exactly a square dilation of radius
    :math:`\lfloor 4 \sigma + 0.5 \rfloor`. ``sigma`` takes their figure.

    Args:
        mask: (N, 1, H, W) or (N, H, W), in [0, 1].
        pixels: the radius in pixels, 0 or more.
        sigma: instead of ``pixels``, the standard deviation in pixels of the published code's blur.

    Returns:
        Float tensor of the mask's shape, the maximum over the square.

    Raises:
        RangeError: unless exactly one of ``pixels`` and ``sigma`` is given, or if it is negative or not finite, or
            ``pixels`` is not whole.
        ShapeError: if the mask has neither of the two shapes.

    Example:
        >>> mask = torch.zeros(1, 5, 5)
        >>> mask[0, 2, 2] = 1
        >>> dilate(mask, 1).sum(), dilate(mask, sigma=0.5).sum()
        (tensor(9.), tensor(25.))
    """
    if (pixels is None) == (sigma is None):
        raise RangeError(
            got=f"pixels={pixels} and sigma={sigma}", needed="exactly one of them", fix="leave the other one out"
        )
    given = float(pixels or sigma or 0)
    # Written so that NaN fails it. A sigma just below zero would round to a radius of 0.
    if not 0 <= given < math.inf or (sigma is None and given % 1):
        raise RangeError(
            got=f"pixels={pixels}" if sigma is None else f"sigma={sigma}",
            needed="a finite number, 0 or more, and whole for pixels",
            fix="give it in pixels",
        )
    radius = int(given if sigma is None else 4 * given + 0.5)
    if mask.dim() != 3 and (mask.dim() != 4 or mask.shape[1] != 1):
        raise ShapeError(
            got=f"a mask of shape {tuple(mask.shape)}", needed="(N, 1, H, W) or (N, H, W)", fix="add the batch axis"
        )
    grown = mask if mask.is_floating_point() else mask.float()
    if radius == 0:
        return grown
    # A square is a line down and a line across, which costs 2k comparisons a pixel instead of k * k.
    grown = F.max_pool2d(grown, (2 * radius + 1, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(grown, (1, 2 * radius + 1), stride=1, padding=(0, radius))


def resize(mask: Tensor, size: tuple[int, int], *, binary: bool = False) -> Tensor:
    """Bring a mask to another size by area: each cell holds the share of it that is relevant.

    Args:
        mask: (N, 1, H, W), in [0, 1].
        size: (h, w), for instance ``features.shape[-2:]``.
        binary: whether to return 0 or 1 (relevant where at least half of the cell is) instead of shares.

    Returns:
        (N, 1, h, w) float, in [0, 1].

    Raises:
        ShapeError: if the mask is not (N, 1, H, W).

    Example:
        >>> mask = torch.tensor([[[[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]]]])
        >>> resize(mask, (1, 2))
        tensor([[[[1.0000, 0.2500]]]])
    """
    if mask.dim() != 4 or mask.shape[1] != 1:
        raise ShapeError(got=f"a mask of shape {tuple(mask.shape)}", needed="(N, 1, H, W)", fix="use mask[:, None]")
    shares = F.adaptive_avg_pool2d(mask if mask.is_floating_point() else mask.float(), size)
    return inside(shares).to(shares.dtype) if binary else shares
