"""What phantoms are drawn with: soft ellipses, texture and noise on a square whose sides run from -1 to 1.

All is float64 and ends as one of 256 grays, so that a last bit in which machines differ does not reach the image.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Picture", "bell_noise", "cover", "depth_in_ellipse", "grid", "mask_tensor", "paint", "texture", "to_image"]

Picture = NDArray[np.float64]


@functools.lru_cache(maxsize=8)
def grid(size: int) -> tuple[Picture, Picture]:
    """The pixels' centres: y (size, 1), downward, and x (1, size), both within -1 to 1 and read-only.

    Args:
        size: height and width in pixels.
    """
    line: Picture = np.arange(1, 2 * size, 2) / size - 1
    line.flags.writeable = False
    return line[:, None], line[None]


def depth_in_ellipse(
    size: int, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0, jags: float | Picture = 0.0
) -> Picture:
    """How deep each pixel lies in an ellipse: (size, size), 0 on the outline, below 0 outside.

    The unit is that of the grid. It is the distance to the outline where the ellipse is a circle, and close to it near
    the ends of the shorter axis.

    Args:
        size: height and width in pixels.
        centre: (y, x).
        radii: along the ellipse's own y and x.
        angle: by which the ellipse is turned, in radians.
        jags: by what share of the radius the outline lies further out, one number or one for each pixel.
    """
    y, x = grid(size)
    y, x = y - centre[0], x - centre[1]
    if angle:
        y, x = math.cos(angle) * y - math.sin(angle) * x, math.sin(angle) * y + math.cos(angle) * x
    depth: Picture = (1 + jags - np.sqrt(np.square(y / radii[0]) + np.square(x / radii[1]))) * min(radii)
    return depth


def cover(depth: Picture, soft: float = 0.0) -> Picture:
    """How much of each pixel a shape covers, in [0, 1]; one half on its outline.

    Args:
        depth: of each pixel in the shape, (size, size).
        soft: the width of the border, which is at least one pixel's.
    """
    shares: Picture = np.clip(depth / max(soft, 2 / len(depth)) + 0.5, 0, 1)
    return shares


def paint(picture: Picture, gray: float | Picture, share: Picture) -> None:
    """Lay a gray over a picture, in place.

    Args:
        picture: (size, size).
        gray: one for all pixels, or one for each.
        share: of the new gray in each pixel, in [0, 1].
    """
    picture += (gray - picture) * share


def texture(rng: np.random.Generator, size: int, cells: int) -> Picture:
    """Smooth random grays within -1 to 1: (size, size).

    Args:
        rng: draws (cells, cells) numbers.
        size: height and width in pixels.
        cells: random numbers a side, 2 or more; between them runs a straight line.
    """
    weights = _between(size, cells)
    smooth: Picture = weights @ rng.uniform(-1, 1, (cells, cells)) @ weights.T
    return smooth


@functools.lru_cache(maxsize=32)
def _between(size: int, cells: int) -> Picture:
    place = np.linspace(0, cells - 1, size)
    weights: Picture = np.clip(1 - np.abs(place[:, None] - np.arange(cells)), 0, 1)
    return weights


def bell_noise(rng: np.random.Generator, size: int) -> Picture:
    """Noise of mean 0 and standard deviation 1, independent in each pixel: (size, size).

    A sum of four uniform numbers and no normal one, whose tails NumPy takes from the machine's own logarithm.

    Args:
        rng: draws (4, size, size) numbers.
        size: height and width in pixels.
    """
    noise: Picture = (rng.random((4, size, size)).sum(0) - 2) * math.sqrt(3)
    return noise


def to_image(picture: Picture) -> Tensor:
    """Clip to [0, 1] and round to 256 grays: (1, size, size) float32, as from an 8-bit PNG.

    Args:
        picture: (size, size).
    """
    return torch.from_numpy(np.rint(np.clip(picture, 0, 1) * 255).astype(np.float32))[None] / 255


def mask_tensor(inside: NDArray[np.bool_]) -> Tensor:
    """A mask as items have it: (1, size, size) float32.

    Args:
        inside: (size, size), True where it is relevant.
    """
    return torch.from_numpy(inside.astype(np.float32))[None]
