"""Chest radiographs with up to six kinds of lesions, some of them rare, each in a box."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribguard.data.phantoms.canvas import (
    Picture,
    bell_noise,
    cover,
    depth_in_ellipse,
    grid,
    paint,
    texture,
    to_image,
)
from attribguard.data.phantoms.chest import Chest, draw_chest
from attribguard.data.phantoms.phantom import Phantom
from attribguard.masks import from_boxes

__all__ = ["LESIONS", "LesionPhantom"]

LESIONS = {"infiltrate": 0.22, "effusion": 0.15, "nodule": 0.11, "mass": 0.07, "large heart": 0.05, "bulla": 0.03}
"""The kinds of lesions in the order of the target's columns, and the share of slices that has each."""

_LARGE_HEART = list(LESIONS).index("large heart")
_NOISE = 0.05  # standard deviation, in grays


class LesionPhantom(Phantom):
    """Chest radiographs with lesions of six kinds: multi-label, imbalanced, with a box around each lesion.

    The kinds appear independently of each other, from 22 % of the slices down to 3 % (`LESIONS`); about half of the
    slices are healthy. There is no shortcut: what this set teaches is imbalance, and what handling it does to a
    network's features.

    Source: Li et al., who train on ChestX-ray14, multi-label and as healthy against unhealthy, and count a network's
    concepts inside boxes. Departures: all of it is drawn; six kinds instead of 14; every lesion has its box, which 984
    of that data set's 112,120 images have, and the imbalance is milder, so that a few thousand slices are enough.

    Args:
        split: ``"train"``, ``"valid"`` or ``"test"``.
        n: number of slices, 1 or more; four in a row are one patient's.
        size: height and width in pixels, 32 to 1024.
        seed: 0 or more; the same seed draws the same slices on every machine.
        binary: whether the target is 0 = healthy, 1 = unhealthy instead of one number a kind.

    Raises:
        DataError: if ``split`` is unknown, or a number is not whole or out of range.

    Items are dicts: ``image`` (1, size, size) float32 in [0, 1]; ``target`` (6,) float32, or () int64 if ``binary``;
    ``boxes`` (6, 4) float32, ``(x0, y0, x1, y1)`` in pixels as in array slicing, and ``box_classes`` (6,) int64, padded
    at the end with zeros and -1; ``mask`` (1, size, size) float32, 1 inside any box; ``annotated`` () bool, False in
    healthy slices, where the mask is 1 everywhere; ``group`` the patient.

    Example:
        >>> data = LesionPhantom("train", n=100)
        >>> item = data[26]
        >>> [kind for kind, there in zip(LESIONS, item["target"]) if there]
        ['infiltrate', 'effusion']
        >>> item["boxes"].shape, item["box_classes"]
        (torch.Size([6, 4]), tensor([ 0,  1, -1, -1, -1, -1]))
    """

    def __init__(
        self,
        split: Literal["train", "valid", "test"],
        n: int,
        size: int = 64,
        seed: int = 0,
        *,
        binary: bool = False,
    ) -> None:
        super().__init__(split, n, size, seed)
        self.binary = binary

    def _draw(self, patient: np.random.Generator, rng: np.random.Generator, place: int) -> dict[str, Any]:
        there = rng.random(len(LESIONS)) < list(LESIONS.values())
        chest = draw_chest(patient, rng, self.size, heart=1.45 if there[_LARGE_HEART] else 1.0)
        shapes = _shapes(chest, rng)
        kinds = np.flatnonzero(there)
        for kind in kinds:
            paint(chest.picture, *shapes[kind])
        boxes = torch.zeros(len(LESIONS), 4)
        classes = torch.full((len(LESIONS),), -1)
        for row, kind in enumerate(kinds):
            boxes[row] = _box_around(shapes[kind][1] >= 0.5)
            classes[row] = int(kind)
        some = len(kinds) > 0
        mask = from_boxes([boxes[: len(kinds)]], (self.size, self.size))[0]
        return {
            "image": to_image(chest.picture + _NOISE * bell_noise(rng, self.size)),
            "target": torch.tensor(int(some)) if self.binary else torch.from_numpy(there.astype(np.float32)),
            "boxes": boxes,
            "box_classes": classes,
            "mask": mask if some else torch.ones_like(mask),
            "annotated": torch.tensor(some),
        }


def _shapes(chest: Chest, rng: np.random.Generator) -> list[tuple[Picture | float, Picture]]:
    """Gray and cover of each kind of lesion in this chest. All are drawn up, so that each uses its own numbers."""
    size = len(chest.picture)
    y, _ = grid(size)

    def disc(least: float, most: float, soft: float = 0.0) -> tuple[Picture, Picture]:
        """The depth in a disc of random size, somewhere in a lung, and its cover."""
        side = int(rng.integers(2))
        spot, radius = rng.uniform(-0.5, 0.5, 2), rng.uniform(least, most)
        (down, right), (tall, wide) = chest.centres[side], chest.radii
        depth = depth_in_ellipse(size, (down + spot[0] * tall, right + spot[1] * wide), (radius, radius))
        return depth, cover(depth, soft)

    _, infiltrate = disc(0.20, 0.30, soft=0.15)
    patches = 0.48 + 0.14 * texture(rng, size, 24)
    fluid = cover(y - chest.centres[0][0] - rng.uniform(0.30, 0.60) * chest.radii[0])
    effusion = chest.lungs[int(rng.integers(2))] * fluid
    _, nodule = disc(0.06, 0.09)
    _, mass = disc(0.15, 0.22, soft=0.08)
    depth, bulla = disc(0.12, 0.18)
    air = 0.12 + 0.38 * (1 - cover(depth - 0.04))  # with a thin bright wall
    return [(patches, infiltrate), (0.58, effusion), (0.58, nodule), (0.52, mass), (0.74, chest.heart), (air, bulla)]


def _box_around(inside: NDArray[np.bool_]) -> Tensor:
    """The smallest box that holds all that is inside."""
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)
