"""Head CT slices from eleven hospitals: is there a dark island inside the hematoma?"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

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

__all__ = ["HEMATOMA_SIGNS", "HematomaPhantom"]

HEMATOMA_SIGNS = ("hypodensity", "no hematoma", "irregular margin", "blend", "fluid level")
"""What a slice of `HematomaPhantom` shows, by its ``sign``: the first is the positive class, all others negative."""

Split = Literal["train", "valid", "test", "unseen"]
_HYPODENSE, _NONE, _IRREGULAR, _BLEND, _FLUID = range(len(HEMATOMA_SIGNS))
_ANNOTATING = 4  # hospitals 1 to 4: those that train
_BRAIN, _VENTRICLE, _BONE, _BLOOD, _CLIP = 0.40, 0.24, 0.78, 0.64, 1.0  # grays
_SPARSE = 0.06  # how much darker than blood the island is on average, and the one part under the other signs


class _Hospital(NamedTuple):
    contrast: float
    noise: float  # standard deviation, in grays
    skull: float  # thickness; the image is 2 wide


_HOSPITALS = (
    _Hospital(0.90, 0.028, 0.07),
    _Hospital(0.97, 0.044, 0.12),
    _Hospital(1.05, 0.034, 0.08),
    _Hospital(1.12, 0.039, 0.10),
    _Hospital(0.88, 0.036, 0.11),
    _Hospital(1.08, 0.030, 0.09),
    _Hospital(0.94, 0.041, 0.13),
    _Hospital(1.02, 0.046, 0.06),
    _Hospital(1.14, 0.033, 0.11),
    _Hospital(0.92, 0.038, 0.08),
    _Hospital(1.00, 0.026, 0.10),
)


class HematomaPhantom(ShortcutPhantom):
    """Head CT slices: class 1 has a hypodense region inside its hematoma, class 0 has not.

    Half of the slices are positive. Of the others, a quarter each has no hematoma, an irregular margin, two parts
    beside each other of different density (blend), or a horizontal level with the darker part above (fluid level). So
    a dark part alone does not tell the classes apart: it must lie inside, as an island. How much darker it is differs:
    most are faint, a few are plain.

    The shortcut is a metal clip on the skull, brighter than bone. In hospitals 1 to 4 (``"train"``, ``"valid"``,
    ``"test"``) it is there in the share ``strength`` of the positive slices and is absent in that share of the
    negative ones; in hospitals 5 to 11 (``"unseen"``) it is there in half of either. Contrast, noise and thickness of
    the skull differ from hospital to hospital.

    Source: Hirata and Okita, *Dataset* and Figure 3: eleven hospitals, four markers, hematomas annotated in hospitals
    1 to 4 alone, the unseen ones tested apart. Departures: all of it is drawn; a slice has one marker and not several;
    no patient stands in two splits, which the paper's test data of hospital 1 do; the clip is ours, because the paper
    shows only that networks look at the skull.

    Args:
        split: ``"train"``, ``"valid"`` or ``"test"`` from hospitals 1 to 4, ``"unseen"`` from hospitals 5 to 11.
        n: number of slices, 1 or more; four in a row are one patient's, two of them positive.
        size: height and width in pixels, 32 to 1024.
        seed: 0 or more; the same seed draws the same slices on every machine.
        strength: share of the slices in hospitals 1 to 4 whose clip agrees with the label, 0 to 1; 0.5 for a control.

    Raises:
        DataError: if ``split`` is unknown, a number not whole or out of range, or ``strength`` no number from 0 to 1.

    Items are dicts: ``image`` (1, size, size) float32 in [0, 1]; ``target`` () int64; ``mask`` (1, size, size)
    float32, 1 on the hematoma; ``annotated`` () bool, False where there is no hematoma and in hospitals 5 to 11, where
    the mask is 1 everywhere; ``segmentation`` (size, size) int64, 1 on the hematoma, 0 elsewhere, -100 in hospitals 5
    to 11; ``sign`` () int64, see `HEMATOMA_SIGNS`; ``shortcut`` () int64, 1 = clip; ``hospital`` () int64, 1 to 11;
    ``group`` the patient.

    Example:
        >>> data = HematomaPhantom("train", n=400, seed=1)
        >>> item = data[2]
        >>> item["image"].shape, item["target"], HEMATOMA_SIGNS[item["sign"]]
        (torch.Size([1, 64, 64]), tensor(1), 'hypodensity')
        >>> opposed = data.shortcut(strength=0.0)  # the same slices, and the clip always speaks for the wrong class
        >>> opposed[2]["shortcut"]
        tensor(0)
    """

    SPLITS: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "unseen")

    def __init__(self, split: Split, n: int, size: int = 64, seed: int = 0, *, strength: float = 0.95) -> None:
        super().__init__(split, n, size, seed, strength=strength)

    def _agreement(self) -> float:
        return 0.5 if self.split == "unseen" else self.strength

    def _draw(self, patient: np.random.Generator, rng: np.random.Generator, place: int) -> dict[str, Any]:
        target = self._two_of_four(patient, place)
        first, last = (_ANNOTATING, len(_HOSPITALS)) if self.split == "unseen" else (0, _ANNOTATING)
        number = int(patient.integers(first, last))
        hospital = _HOSPITALS[number]
        head = patient.uniform(0.84, 0.92), patient.uniform(0.70, 0.78)
        tilt = patient.uniform(-0.15, 0.15)

        sign = _HYPODENSE if target else int(rng.integers(_NONE, len(HEMATOMA_SIGNS)))
        clip = self._shortcut_says(target, rng)
        around = rng.uniform(-math.pi, 0)  # anywhere but at the bottom, where the head rests
        picture, brain = _draw_head(rng, self.size, head, tilt, hospital.skull)
        blood = _draw_hematoma(picture, rng, sign, brain)
        if clip:
            _draw_clip(picture, head, around, outside=brain == 0)
        picture = _BRAIN + (picture - _BRAIN) * hospital.contrast + hospital.noise * bell_noise(rng, self.size)
        return {
            "image": to_image(picture),
            "target": torch.tensor(target),
            **annotation(blood >= 0.5, readable=number < _ANNOTATING),
            "sign": torch.tensor(sign),
            "shortcut": torch.tensor(clip),
            "hospital": torch.tensor(number + 1),
        }


def _draw_head(
    rng: np.random.Generator, size: int, head: tuple[float, float], tilt: float, thickness: float
) -> tuple[Picture, Picture]:
    """Air, skull, brain with its texture, and the two ventricles; and how much of each pixel is brain."""
    picture = np.zeros((size, size))
    depth = depth_in_ellipse(size, (0, 0), head, tilt)
    paint(picture, _BONE, cover(depth))
    brain = cover(depth - thickness)
    paint(picture, _BRAIN + 0.05 * texture(rng, size, 10), brain)
    wide = rng.uniform(0.05, 0.09)
    for side in (-1, 1):
        ventricle = depth_in_ellipse(size, (-0.05, side * 0.14), (rng.uniform(0.2, 0.3), wide), tilt - side * 0.3)
        paint(picture, _VENTRICLE, cover(ventricle, 0.06))
    return picture, brain


def _draw_hematoma(picture: Picture, rng: np.random.Generator, sign: int, brain: Picture) -> Picture:
    """Draw the hematoma with its sign, within the brain; gives how much of each pixel it covers.

    Draws as many numbers for any sign.
    """
    size = len(picture)
    around, far = rng.uniform(0, math.tau), rng.uniform(0.4, 1.0)
    y, x = 0.36 * far * math.sin(around), 0.30 * far * math.cos(around)
    radius, flat, angle = rng.uniform(0.20, 0.30), rng.uniform(0.8, 1.0), rng.uniform(0, math.pi)
    teeth, phase, cut = int(rng.integers(6, 10)), rng.uniform(0, math.tau), rng.uniform(0, math.tau)
    island, shift, deep = rng.uniform(0.40, 0.50), rng.uniform(0.0, 0.20), 0.2 + 3.2 * rng.random() ** 3
    soft = rng.uniform(0.04, 0.08)
    grain = 0.03 * texture(rng, size, 16)
    if sign == _NONE:
        return np.zeros_like(picture)

    rows, columns = grid(size)
    rows, columns = rows - y, columns - x
    wave = np.sin((teeth if sign == _IRREGULAR else 2) * np.arctan2(rows, columns) + phase)
    jags = (0.22 if sign == _IRREGULAR else 0.06) * wave
    share = cover(depth_in_ellipse(size, (y, x), (radius, radius * flat), angle, jags), soft) * brain
    sparse = np.zeros_like(picture)
    if sign == _HYPODENSE:
        centre = y + shift * radius * math.sin(cut), x + shift * radius * math.cos(cut)
        sparse = cover(depth_in_ellipse(size, centre, (island * radius, island * radius)), 0.06)
    elif sign == _BLEND:
        sparse = cover(math.sin(cut) * rows + math.cos(cut) * columns - 0.2 * radius)
    elif sign == _FLUID:
        sparse = np.broadcast_to(cover(-rows + 2 * (shift - 0.1) * radius), share.shape)
    paint(picture, _BLOOD + grain - _SPARSE * deep * sparse, share)
    return share


def _draw_clip(picture: Picture, head: tuple[float, float], around: float, outside: NDArray[np.bool_]) -> None:
    """A bright disc on the skull and never on the brain."""
    centre = 0.95 * head[0] * math.sin(around), 0.95 * head[1] * math.cos(around)
    paint(picture, _CLIP, cover(depth_in_ellipse(len(picture), centre, (0.08, 0.08))) * outside)
