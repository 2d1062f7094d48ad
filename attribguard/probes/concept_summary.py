"""Concept counts as they are reported: with intervals, for each class and each unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from attribguard.probes.estimate import Estimate
from attribguard.probes.interval import Resampling
from attribguard.probes.per_image import PerImage
from attribguard.probes.unit_bars import UNITS_SHOWN, draw_bars

__all__ = ["ConceptSummary"]

_KINDS = ("disjoint", "unique")


@dataclass(frozen=True, kw_only=True)
class ConceptSummary:
    """What :class:`attribguard.probes.concept_count.ConceptCount` found at one threshold a unit.

    Attributes:
        metric: its name, with the settings that make it another one.
        threshold: the thresholds' name, such as ``"q=0.005"``; empty where they have none.
        disjoint: concepts an image, all units together.
        unique: units with a concept, an image.
        per_class: class index to its own ``"disjoint"`` and ``"unique"``, where ``update`` was given classes. Images
            without a region are not counted there.
        disjoint_per_unit: (U,) int64, the concepts of each unit, all images together.
        unique_per_unit: (U,) int64, the images on which each unit has one.
        without_region: how many images had no region; they are left out.
        resampling: confidence level, number of resamples and seed.
    """

    metric: str
    threshold: str
    disjoint: Estimate
    unique: Estimate
    per_class: dict[int, dict[str, Estimate]]
    disjoint_per_unit: Tensor
    unique_per_unit: Tensor
    without_region: int
    resampling: Resampling

    @classmethod
    def of(
        cls, metric: str, threshold: str, held: PerImage, per_unit: tuple[Tensor, Tensor], resampling: Resampling
    ) -> ConceptSummary:
        """Estimate means and draw intervals.

        Args:
            metric: its name and settings.
            threshold: name of the thresholds.
            held: values (N, 2) for the N images with a region: concepts, and units with one.
            per_unit: the sums of both over the images, (U,) each.
            resampling: how intervals are drawn.
        """
        values = held.values.cpu().double().numpy()
        groups = None if held.groups is None else held.groups.cpu().numpy()
        classes = np.zeros(0, np.int64) if held.classes is None else held.classes.cpu().numpy()

        def both(rows: Any, left_out: int = 0) -> dict[str, Estimate]:
            some = None if groups is None else groups[rows]
            columns = values[rows].T
            return {
                kind: Estimate.of(column, some, resampling, left_out=left_out)
                for kind, column in zip(_KINDS, columns, strict=True)
            }

        disjoint, unique = per_unit
        return cls(
            metric=metric,
            threshold=threshold,
            **both(slice(None), held.without_region),
            per_class={index: both(classes == index) for index in np.unique(classes).tolist()},
            disjoint_per_unit=disjoint.cpu(),
            unique_per_unit=unique.cpu(),
            without_region=held.without_region,
            resampling=resampling,
        )

    def __str__(self) -> str:
        level = 100 * self.resampling.interval
        parts = []
        for kind in _KINDS:
            part: Estimate = getattr(self, kind)
            parts.append(
                f"{kind} {part.value:.3f} ({level:g} % interval {part.interval[0]:.3f} to {part.interval[1]:.3f})"
            )
        at = f" at {self.threshold}" if self.threshold else ""
        by = "" if self.disjoint.groups is None else f" in {self.disjoint.groups} groups"
        return f"{self.metric}{at}: {', '.join(parts)}, n={self.disjoint.n}{by}, {self.without_region} without a region"

    def plot(self, ax: Any = None, *, units: int = UNITS_SHOWN) -> Any:
        """Draw the units that have most concepts, as bars: the concepts, and the images on which there is one.

        Args:
            ax: matplotlib axes to draw on; new ones by default.
            units: how many to show at most.

        Returns:
            The figure, to be saved or shown.
        """
        best = self.disjoint_per_unit.argsort(descending=True, stable=True)[:units]
        series = {
            "concepts": self.disjoint_per_unit[best].tolist(),
            "images with one": self.unique_per_unit[best].tolist(),
        }
        ax = draw_bars(ax, [str(unit) for unit in best.tolist()], series, f"number on {self.disjoint.n} images")
        ax.set_xlabel(f"unit{', ' + self.threshold if self.threshold else ''}")
        return ax.get_figure()
