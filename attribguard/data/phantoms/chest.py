"""A chest radiograph without findings: what two of the phantoms are drawn on."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from attribguard.data.phantoms.canvas import Picture, cover, depth_in_ellipse, grid, paint, texture

__all__ = ["Chest", "draw_chest"]

_BODY, _HEART, _LUNG, _RIB = 0.62, 0.74, 0.30, 0.07  # grays


class Chest(NamedTuple):
    """A drawn chest.

    Attributes:
        picture: (size, size) grays.
        lungs: how much of each pixel they cover, the right one first, which is on the left of the image.
        heart: likewise.
        centres: of the lungs, (y, x).
        radii: of each lung, (along y, along x).
    """

    picture: Picture
    lungs: tuple[Picture, Picture]
    heart: Picture
    centres: tuple[tuple[float, float], tuple[float, float]]
    radii: tuple[float, float]


def draw_chest(patient: np.random.Generator, rng: np.random.Generator, size: int, heart: float = 1.0) -> Chest:
    """Draw body, lungs, ribs and heart.

    Args:
        patient: random stream of what stays from slice to slice: the build.
        rng: of what does not: breath, darkness of the lungs, texture.
        size: height and width in pixels.
        heart: its width, as a multiple of an ordinary one.

    Returns:
        The chest.
    """
    tall, wide, apart = patient.uniform(0.56, 0.66), patient.uniform(0.27, 0.32), patient.uniform(0.38, 0.43)
    breath, dark = rng.uniform(0.94, 1.06), rng.uniform(-0.05, 0.05)
    y, x = grid(size)
    picture = np.zeros((size, size))
    paint(picture, _BODY + 0.05 * texture(rng, size, 8), cover(depth_in_ellipse(size, (0.2, 0), (1.15, 0.92)), 0.1))
    centres = ((-0.05, -apart), (-0.05, apart))
    radii = (tall * breath, wide)
    right, left = (
        cover(depth_in_ellipse(size, centre, radii, side * 0.12), 0.08)
        for centre, side in zip(centres, (-1, 1), strict=True)
    )
    for lung in (right, left):
        paint(picture, _LUNG + dark + 0.06 * texture(rng, size, 12), lung)
    slope = 7 * math.pi * (y - 0.35 * np.square(np.abs(x) - apart) + rng.uniform(-0.1, 0.1))
    picture += _RIB * np.sin(slope) * (right + left)
    middle = cover(depth_in_ellipse(size, (0.25, 0.10), (0.28, 0.24 * heart), 0.4), 0.08)
    paint(picture, _HEART, middle)
    return Chest(picture, (right, left), middle, centres, radii)
