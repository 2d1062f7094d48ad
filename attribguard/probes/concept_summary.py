"""Concept counts as they are reported: with intervals, for each class and each unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from attribguard.probes.estimate import Estimate
from attribguard.probes.interval import Resampling
from attribguard.probes.per_image import PerImage
from attribguard.probes.unit_bars import UNITS_SHOWN, draw_bars

__all__ = ["ConceptSummary"]


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
        (disjoint, disjoint_of), (unique, unique_of) = (column.estimates(resampling) for column in held.columns())
        return cls(
            metric=metric,
            threshold=threshold,
            disjoint=disjoint,
            unique=unique,
            per_class={index: {"disjoint": disjoint_of[index], "unique": unique_of[index]} for index in unique_of},
            disjoint_per_unit=per_unit[0].cpu(),
            unique_per_unit=per_unit[1].cpu(),
            without_region=held.without_region,
            resampling=resampling,
        )

    def __str__(self) -> str:
        level = 100 * self.resampling.interval
        parts = []
        for kind, part in (("disjoint", self.disjoint), ("unique", self.unique)):
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
