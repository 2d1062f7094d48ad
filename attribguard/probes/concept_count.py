"""How many concepts a layer's units hold in the annotated regions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from attribguard.errors import check_choice
from attribguard.functional.concepts import CONNECTIVITIES, count_concepts
from attribguard.probes.concept_summary import ConceptSummary
from attribguard.probes.interval import Resampling
from attribguard.probes.labels import Labels
from attribguard.probes.per_image_state import PerImageState
from attribguard.probes.regions import Region
from attribguard.probes.unit_bars import draw_bars
from attribguard.probes.unit_maps import Size, Thresholds, UnitMetric

__all__ = ["ConceptCount"]


class ConceptCount(PerImageState, UnitMetric):
    """Concepts in the annotated region, an image (Li et al., Sections 3.2 and 4.3).

    A *concept* is a connected component of a unit's map above that unit's threshold which overlaps the region.
    *Disjoint* is the number of concepts of all units, the mean over images; *unique* the number of units with one at
    least, the mean over images. The paper's words for the latter could also mean the units that have one on any image,
    over the number of images; the figures above a hundred in its Table 2 fit only the mean.

    Only images with a region count, as in the paper; others are left out and counted. A cell is above a threshold where
    it is strictly larger, while network dissection lets it be equal: a dead unit, whose threshold is 0, so has no
    concept. With ``size="map"`` a region covers every cell that it overlaps at all.

    ``compute`` needs no image again, but an interval needs two numbers an image and threshold: 8 bytes, and the class
    and group where they are given. All else is of constant size. In several processes the states are joined, and the
    results equal those of one process.

    Args:
        thresholds: (U,), one for each unit, or a mapping from names to such, as in
            :class:`attribguard.probes.unit_maps.UnitMetric`.
        connectivity: 4 or 8, see :func:`attribguard.functional.concepts.count_concepts`.
        size: ``"map"`` or ``"input"``, see :class:`attribguard.probes.unit_maps.UnitMetric`.
        image_size: (H, W) of the images, in whose pixels regions are given; that of the maps by default.
        interval: confidence level of the intervals in :meth:`summary`.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.
        **kwargs: those of every ``torchmetrics.Metric``.

    Raises:
        TypeMismatchError: if thresholds are no floating-point tensors.
        ShapeError: if they are not (U,), or not of one length.
        RangeError: if an argument is outside its range.

    Example:
        >>> features = torch.tensor([[[[9.0, 0.0, 9.0, 0.0, 9.0]], [[9.0, 9.0, 0.0, 0.0, 0.0]]]])
        >>> count = ConceptCount(torch.tensor([5.0, 5.0]), image_size=(10, 50))
        >>> count(features, [[[0, 0, 25, 10]]])
        {'disjoint': tensor(3.), 'unique': tensor(2.)}
        >>> named = {"low": torch.tensor([5.0, 5.0]), "high": torch.tensor([5.0, 9.0])}
        >>> ConceptCount(named)(features, [[[0, 0, 1, 1]]])
        {'disjoint@low': tensor(2.), 'disjoint@high': tensor(1.), 'unique@low': tensor(2.), 'unique@high': tensor(1.)}
    """

    def __init__(
        self,
        thresholds: Thresholds,
        connectivity: int = 8,
        *,
        size: Size = "map",
        image_size: tuple[int, int] | None = None,
        interval: float = 0.95,
        n_resamples: int = 9999,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check_choice("connectivity", connectivity, CONNECTIVITIES)
        resampling = Resampling(interval, n_resamples, seed)
        settings = {"connectivity": connectivity}
        super().__init__(thresholds, size=size, image_size=image_size, settings=settings, **kwargs)
        self.connectivity, self.resampling = connectivity, resampling
        self._per_unit = f"units of {self._key}"
        self._keep_per_image(f"values of {self._key}", torch.zeros(0, 2 * len(self.thresholds), dtype=torch.int32))
        zeros = torch.zeros(2, *self.thresholds.shape, dtype=torch.int64)
        self.add_state(self._per_unit, zeros, dist_reduce_fx="sum")

    def update(
        self,
        features: Tensor,
        region: Region,
        *,
        classes: Tensor | Sequence[int] | None = None,
        groups: Labels | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            features: (N, U, h, w) floating, finite: a layer's maps, channels first.
            region: masks, boxes or lists of boxes in pixels of ``image_size``, see
                :func:`attribguard.probes.regions.as_region`.
            classes: (N,) class indices, for results class by class. An image with several findings comes once for each,
                with the finding's own boxes, and with its group.
            groups: (N,) what the image belongs to, such as a patient: whole numbers or strings. Intervals are then over
                groups.

        Raises:
            ShapeError: if sizes, numbers of images, or the number of units differ.
            TypeMismatchError: if an argument is of the wrong kind.
            RangeError: if a map is not finite, a box or mask is bad, or classes or groups are given for some batches
                and not for others.
        """
        maps, shares, annotated = self._read(features, region)
        labels = self._read_labels(annotated, classes, groups)
        if bool(annotated.any()):
            counts = self._count(maps[annotated], shares[annotated] > 0).to(self.device)
            both = torch.stack([counts, (counts > 0).long()])
            self._hold(both.sum(-1).permute(1, 0, 2).flatten(1), labels)
            setattr(self, self._per_unit, getattr(self, self._per_unit) + both.sum(1))
        self.without_region = self.without_region + (~annotated).sum().to(self.device)

    def _count(self, maps: Tensor, region: Tensor) -> Tensor:
        counts = torch.zeros(len(maps), *self.thresholds.shape, dtype=torch.int64, device=maps.device)
        for index, units, active in self._active(maps, region.shape[1:]):
            counts[:, index, units] = count_concepts(active, region, self.connectivity)
        return counts

    def compute(self) -> dict[str, Tensor]:
        """The means over images with a region.

        Returns:
            ``"disjoint"`` and ``"unique"`` to 0-d tensors; with named thresholds ``"disjoint@name"`` and
            ``"unique@name"`` for each; nan where no image has a region.
        """
        means = dim_zero_cat(getattr(self, self._values)).double().mean(0).float().view(2, -1)
        return self._named("disjoint", means[0]) | self._named("unique", means[1])

    def summary(self) -> Any:
        """The means with their intervals, each class by itself, and the counts of each unit.

        Returns:
            A :class:`attribguard.probes.concept_summary.ConceptSummary`; a dict of them by name for named thresholds.

        Raises:
            RangeError: if classes or groups were given for some images and not for others.
        """
        with self._joined() as held:
            per_unit = getattr(self, self._per_unit)
        names = self.names or ("",)
        summaries = {}
        for name, columns, units in zip(
            names, held.values.view(-1, 2, len(names)).unbind(2), per_unit.unbind(1), strict=True
        ):
            part = dataclasses.replace(held, values=columns)
            summaries[name] = ConceptSummary.of(self.label, name, part, (units[0], units[1]), self.resampling)
        return summaries if self.names else summaries[""]

    def plot(self, val: dict[str, Tensor] | None = None, ax: Any = None) -> Any:
        """Draw both counts as bars, for each threshold; ``summary().plot()`` draws those of units.

        Args:
            val: a result of ``compute``; the current one by default.
            ax: matplotlib axes to draw on; new ones by default.

        Returns:
            The figure and the axes.
        """
        heights = [float(mean) for mean in (self.compute() if val is None else val).values()]
        half = len(heights) // 2
        series = {"disjoint": heights[:half], "unique": heights[half:]}
        ax = draw_bars(ax, self.names or ["all units"], series, "concepts an image")
        return ax.figure, ax
