"""Chest radiographs from two sites whose borders, brightness and noise differ: are there bullae in the lungs?"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch

from attribguard.data.phantoms.canvas import Picture, bell_noise, cover, depth_in_ellipse, grid, paint, to_image
from attribguard.data.phantoms.chest import Chest, draw_chest
from attribguard.data.phantoms.phantom import ShortcutPhantom
from attribguard.masks import circle

__all__ = ["SitesPhantom"]

_BULLA = 0.075  # how much darker than the lung on average; most are fainter, a few much darker
_BULLAE = 3
_CIRCLE = 0.44  # radius of the mask, as a share of the image's side; all of the border lies outside


class _Site(NamedTuple):
    border: float  # width of the frame; the image is 2 wide
    frame: float  # its gray
    letter: tuple[float, float]  # the side marker's corner, (y, x)
    brightness: float  # added to all grays
    noise: float  # standard deviation, in grays


_SITES = (
    _Site(border=0.10, frame=0.02, letter=(-0.82, -0.82), brightness=0.00, noise=0.03),
    _Site(border=0.04, frame=0.45, letter=(-0.82, 0.82), brightness=0.04, noise=0.04),
)


class SitesPhantom(ShortcutPhantom):
    """Chest radiographs of two sites: class 1 has bullae, small dark holes in its lungs, class 0 has none.

    There are three, most of them faint, a few plain; two may lie over each other.

    The shortcut is the site. In ``"train"`` and ``"seen"`` the share ``strength`` of the slices of class 1 comes from
    site 1 and that share of class 0 from site 0; in ``"valid"`` and ``"test"`` it is ``1 - strength``, the reverse.
    Classes and sites are balanced in every split. The sites differ in the frame and the side marker at the border,
    which the mask leaves out, but also in brightness and noise, which are everywhere and which no mask can hide.

    Source: Viviano et al., Section 6: emphysema from two data sets that differ at the border, 90 % of the unhealthy
    from one site and the reverse in validation and test, circular masks. Departures: all of it is drawn; ``"seen"`` is
    ours, to measure what a network scores where the shortcut holds.

    Args:
        split: ``"train"`` or ``"seen"``, with the training's correlation, ``"valid"`` or ``"test"``, with the reverse.
        n: number of slices, 1 or more; four in a row are one patient's, two of them of class 1.
        size: height and width in pixels, 32 to 1024.
        seed: 0 or more; the same seed draws the same slices on every machine.
        strength: share of the training slices whose site agrees with the label, 0 to 1. The paper has 0.9, and 0.5 as
            a control.

    Raises:
        DataError: if ``split`` is unknown, a number not whole or out of range, or ``strength`` no number from 0 to 1.

    Items are dicts: ``image`` (1, size, size) float32 in [0, 1]; ``target`` () int64; ``mask`` (1, size, size)
    float32, 1 in a circle that leaves the border out; ``annotated`` () bool, always True; ``shortcut`` () int64, the
    site, 0 or 1; ``group`` the patient.

    Example:
        >>> train = SitesPhantom("train", n=200)
        >>> sum(int(item["shortcut"] == item["target"]) for item in train)
        178
        >>> control = train.shortcut(strength=0.5)
    """

    SPLITS: ClassVar[tuple[str, ...]] = ("train", "valid", "test", "seen")

    def __init__(
        self,
        split: Literal["train", "valid", "test", "seen"],
        n: int,
        size: int = 64,
        seed: int = 0,
        *,
        strength: float = 0.9,
    ) -> None:
        super().__init__(split, n, size, seed, strength=strength)

    def _agreement(self) -> float:
        return self.strength if self.split in ("train", "seen") else 1 - self.strength

    def _draw(self, patient: np.random.Generator, rng: np.random.Generator, place: int) -> dict[str, Any]:
        target = self._two_of_four(patient, place)
        number = self._shortcut_says(target, rng)
        site = _SITES[number]
        chest = draw_chest(patient, rng, self.size)
        _draw_bullae(chest, rng, target)
        wide = site.border * rng.uniform(0.8, 1.2)
        picture = chest.picture + site.brightness + site.noise * bell_noise(rng, self.size)
        _draw_border(picture, site, wide)
        return {
            "image": to_image(picture),
            "target": torch.tensor(target),
            "mask": circle((self.size, self.size), _CIRCLE * self.size)[0],
            "annotated": torch.tensor(True),
            "shortcut": torch.tensor(number),
        }


def _draw_bullae(chest: Chest, rng: np.random.Generator, there: int) -> None:
    """Dark holes in the lungs, all as deep; draws as many numbers if there are none."""
    deep = _BULLA * (0.3 + 2.8 * rng.random() ** 3)
    for side, spot, radius in zip(
        rng.integers(0, 2, _BULLAE),
        rng.uniform(-0.55, 0.55, (_BULLAE, 2)),
        rng.uniform(0.08, 0.12, _BULLAE),
        strict=True,
    ):
        y, x = chest.centres[side]
        centre = y + spot[0] * chest.radii[0], x + spot[1] * chest.radii[1]
        if there:
            hole = cover(depth_in_ellipse(len(chest.picture), centre, (radius, radius)), 0.06)
            chest.picture[:] -= deep * hole


def _draw_border(picture: Picture, site: _Site, wide: float) -> None:
    """The frame and the side marker, both of them outside the circle that the mask marks."""
    y, x = grid(len(picture))
    paint(picture, site.frame, 1 - cover(1 - wide - np.maximum(np.abs(y), np.abs(x))))
    down, right = site.letter
    paint(picture, 0.95, cover(0.07 - np.maximum(np.abs(y - down), np.abs(x - right))))
