"""Small pictures of images, regions and heat maps, ready to stand in a page."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

__all__ = ["heat_picture", "outline_picture", "thumbnail"]

_SIDE, _CELLS = 96, 32
_CYAN = (0, 220, 255)


def thumbnail(image: Tensor) -> str:
    """The image, stretched to its own range.

    Args:
        image: (C, H, W); the first three channels, or the first one.

    Returns:
        A WebP file as a data address.
    """
    shown = image[:3] if len(image) >= 3 else image[:1]
    low, high = shown.min(), shown.max()
    shown = (shown - low) / (high - low).clamp(min=1e-12)
    pixels = (_fitted(shown).clamp(0, 1) * 255).round().byte().cpu().numpy()
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    return _address(picture, "webp", quality=75)


def outline_picture(region: Tensor) -> str:
    """The outline of a region, everything else transparent; an empty string for an empty region.

    Args:
        region: (H, W) bool.
    """
    if not bool(region.any()):
        return ""
    inside = _fitted(region[None].float())[0] >= 0.5
    # A border of pixels outside, so that a region that reaches the edge is closed there.
    around = F.max_pool2d(F.pad((~inside).float()[None], (1, 1, 1, 1), value=1.0), 3, 1)[0] > 0
    edge = (inside & around).cpu().numpy()
    pixels = np.zeros((*edge.shape, 4), np.uint8)
    pixels[edge] = (*_CYAN, 255)
    return _address(Image.fromarray(pixels).quantize(2), "png", optimize=True)


def heat_picture(attribution: Tensor) -> str:
    """A heat map of 32 x 32 cells at most, scaled by its maximum, transparent where there is nothing.

    The page enlarges it.

    Args:
        attribution: (h, w), 0 or more.
    """
    height, width = (min(_CELLS, side) for side in attribution.shape)
    attribution = F.adaptive_avg_pool2d(attribution[None], (height, width))[0]
    heat = (attribution / attribution.max().clamp(min=1e-12)).clamp(0, 1).cpu().double().numpy()
    colours: NDArray[np.float64] = np.asarray(colormaps["inferno"](heat))
    colours[..., 3] = np.sqrt(heat)
    return _address(Image.fromarray((colours * 255).round().astype(np.uint8)), "png", optimize=True)


def _fitted(image: Tensor) -> Tensor:
    """(C, H, W), the longer side of at most so many pixels; small images are enlarged by whole factors."""
    height, width = image.shape[-2:]
    longest = max(height, width)
    if longest <= _SIDE:
        factor = max(1, _SIDE // longest)
        return image.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    size = [max(1, round(side * _SIDE / longest)) for side in (height, width)]
    return F.interpolate(image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]


def _address(picture: Image.Image, kind: str, **options: object) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
