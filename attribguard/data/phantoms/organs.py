"""Abdominal CT slices: is the pancreas there? A stomach bright with contrast agent tempts to be taken for it."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch

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
from attribguard.data.phantoms.phantom import ShortcutPhantom, annotation

__all__ = ["OrganPhantom"]

_FAT, _MUSCLE, _LIVER, _SPLEEN, _KIDNEY, _BONE = 0.22, 0.45, 0.55, 0.58, 0.64, 0.90  # grays
_STOMACH, _BOWEL, _PANCREAS = 0.80, 0.48, 0.48
_NOISE = 0.05  # standard deviation, in grays
_LOOPS = 6


class OrganPhantom(ShortcutPhantom):
    """Abdominal CT slices with liver, spleen, kidneys, spine and bowel: class 1 shows the pancreas, class 0 does not.

    The shortcut is another organ: a stomach filled with contrast agent, large and bright, is there in the share
    ``strength`` of the slices with the pancreas and absent in that share of those without, in every split. The
    pancreas itself is a curved, lobed band among loops of bowel of nearly its gray. A network that finds the stomach
    has found the wrong organ; ``shortcut(0.5)`` of a test set shows whether it has.

    Source: Viviano et al., Section 5: detection of an organ in single slices, with its segmentation as the mask, and
    the remark that classifiers use the incorrect organ. Departures: all of it is drawn; in the paper no one has set
    which organ misleads, or how often.

    Args:
        split: ``"train"``, ``"valid"`` or ``"test"``.
        n: number of slices, 1 or more; four in a row are one patient's, two of them of class 1.
        size: height and width in pixels, 32 to 1024. The paper has 100.
        seed: 0 or more; the same seed draws the same slices on every machine.
        strength: share of the slices whose stomach agrees with the label, 0 to 1; 0.5 for a control.

    Raises:
        DataError: if ``split`` is unknown, a number not whole or out of range, or ``strength`` no number from 0 to 1.

    Items are dicts: ``image`` (1, size, size) float32 in [0, 1]; ``target`` () int64; ``mask`` (1, size, size)
    float32, 1 on the pancreas; ``annotated`` () bool, False where there is none and the mask is 1 everywhere;
    ``segmentation`` (size, size) int64, 1 on the pancreas, 0 elsewhere; ``shortcut`` () int64, 1 = stomach; ``group``
    the patient.

    Example:
        >>> item = OrganPhantom("test", n=100)[0]
        >>> item["target"], item["shortcut"], item["group"]
        (tensor(1), tensor(1), 'test-00000')
        >>> item["segmentation"].sum() == item["mask"].sum()
        tensor(True)
    """

    def __init__(
        self,
        split: Literal["train", "valid", "test"],
        n: int,
        size: int = 64,
        seed: int = 0,
        *,
        strength: float = 0.95,
    ) -> None:
        super().__init__(split, n, size, seed, strength=strength)

    def _draw(self, patient: np.random.Generator, rng: np.random.Generator, place: int) -> dict[str, Any]:
        target = self._two_of_four(patient, place)
        stomach = self._shortcut_says(target, rng)
        picture = _draw_body(patient, rng, self.size)
        gray, pancreas = _pancreas(rng, self.size)
        filled = _stomach(rng, self.size) * (pancreas == 0)  # with or without a pancreas, or its shape would tell
        if stomach:
            paint(picture, _STOMACH, filled)
        if target:
            paint(picture, gray, pancreas)
        return {
            "image": to_image(picture + _NOISE * bell_noise(rng, self.size)),
            "target": torch.tensor(target),
            **annotation((pancreas >= 0.5) & bool(target)),
            "shortcut": torch.tensor(stomach),
        }


def _draw_body(patient: np.random.Generator, rng: np.random.Generator, size: int) -> Picture:
    """Fat, muscle wall, spine, liver, spleen, kidneys and loops of bowel."""
    picture = np.zeros((size, size))
    tall, wide, fat = patient.uniform(0.70, 0.78), patient.uniform(0.86, 0.94), patient.uniform(0.06, 0.12)
    body = depth_in_ellipse(size, (0, 0), (tall, wide))
    paint(picture, _FAT, cover(body))
    paint(picture, _MUSCLE, cover(body - fat))
    paint(picture, _FAT + 0.04 * texture(rng, size, 8), cover(body - fat - 0.07))

    def organ(gray: float, y: float, x: float, radii: tuple[float, float], angle: float = 0.0) -> None:
        down, right, grown = rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03), rng.uniform(0.92, 1.08)
        grown_radii = radii[0] * grown, radii[1] * grown
        depth = depth_in_ellipse(size, (y + down, x + right), grown_radii, angle)
        paint(picture, gray + 0.03 * texture(rng, size, 16), cover(depth, 0.04) * cover(body - fat - 0.07))

    organ(_LIVER, -0.12, -0.48, (0.40, 0.30))
    organ(_SPLEEN, 0.08, 0.62, (0.24, 0.12), 0.2)
    for side in (-1, 1):
        organ(_KIDNEY, 0.30, side * 0.38, (0.14, 0.10), side * 0.3)
    organ(_BONE, 0.42, 0.0, (0.13, 0.13))
    for y, x, long, angle in zip(
        rng.uniform(-0.35, 0.2, _LOOPS),
        rng.uniform(-0.25, 0.45, _LOOPS),
        rng.uniform(0.08, 0.30, _LOOPS),
        rng.uniform(0, math.pi, _LOOPS),
        strict=True,
    ):
        organ(_BOWEL, y, x, (0.08, long), angle)
    return picture


def _pancreas(rng: np.random.Generator, size: int) -> tuple[Picture, Picture]:
    """Gray and cover of a curved, lobed band before the spine."""
    y, x = grid(size)
    down, right = rng.uniform(-0.08, 0.08), rng.uniform(0.0, 0.12)
    tilt, bend = rng.uniform(-0.4, -0.1), rng.uniform(0.4, 0.8)
    half, thick, phase = rng.uniform(0.30, 0.38), rng.uniform(0.075, 0.095), rng.uniform(0, math.tau)
    along = x - right
    middle = down + tilt * along + bend * np.square(along)
    lobes = 1 + 0.2 * np.sin(40 * along + phase)
    taper = np.sqrt(np.clip(1 - np.square(along / half), 0, 1))
    share = cover(thick * lobes * taper - np.abs(y - middle)) * (taper > 0)
    return _PANCREAS + 0.03 * texture(rng, size, 16), share


def _stomach(rng: np.random.Generator, size: int) -> Picture:
    """The cover of an ellipse above the pancreas."""
    (down, right), grown = rng.uniform(-0.05, 0.05, 2), rng.uniform(0.9, 1.15)
    return cover(depth_in_ellipse(size, (down - 0.40, right + 0.20), (0.13 * grown, 0.22 * grown), 0.4), 0.05)
