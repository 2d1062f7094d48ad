"""How well each unit marks the annotated region by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attribguard.probes.regions import Region
from attribguard.probes.unit_bars import UNITS_SHOWN, draw_bars
from attribguard.probes.unit_maps import Size, Thresholds, UnitMetric

__all__ = ["UnitAlignment"]


class UnitAlignment(UnitMetric):
    r"""The overlap of each unit's active places with the region, over a data set (network dissection, Bau et al. 2017).

    For a unit :math:`\sum_i |M_i \cap R_i| \, / \sum_i |M_i \cup R_i|` over the images i with a region, where M is
    where its map is above its threshold and R the region (their Section 2.3). The sums are taken before the ratio: an
    image counts by its areas. Network dissection calls a unit a detector above 0.04. Where there are several kinds of
    findings, keep one metric a kind: a unit then goes by the kind of which its overlap is the largest.

    Departures: "above" is strict, so that dead units mark nothing; images without a region count as not annotated and
    are left out, and counted; and by default, ``size="map"``, a cell stands for all its pixels. Areas are then those
    of the map enlarged by repetition, exactly where the map's sides divide the image's; ``"input"`` enlarges it
    bilinearly, as they do.

    States are sums, of constant size. In several processes they add up.

    Args:
        thresholds: (U,), one for each unit, or a mapping from names to such, as in
            :class:`attribguard.probes.unit_maps.UnitMetric`.
        size: ``"map"`` or ``"input"``, likewise.
        image_size: (H, W) of the images, in whose pixels regions are given; that of the maps by default.
        **kwargs: those of every ``torchmetrics.Metric``.

    Raises:
        TypeMismatchError: if thresholds are no floating-point tensors.
        ShapeError: if they are not (U,), or not of one length.
        RangeError: if an argument is outside its range.

    Example:
        >>> features = torch.tensor([[[[9.0, 0.0, 9.0, 0.0]], [[9.0, 9.0, 0.0, 0.0]]]])
        >>> alignment = UnitAlignment(torch.tensor([5.0, 5.0]), image_size=(10, 40))
        >>> alignment(features, [[[0, 0, 20, 10]]])
        tensor([0.3333, 1.0000])
        >>> alignment.compute().argmax()  # the unit to look at
        tensor(1)
    """

    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(
        self,
        thresholds: Thresholds,
        *,
        size: Size = "map",
        image_size: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(thresholds, size=size, image_size=image_size, **kwargs)
        # The two sums over images, in cells: of the intersection and of the union.
        self._areas = f"areas of {self._key}"
        zeros = torch.zeros(2, *self.thresholds.shape, dtype=torch.float64)
        self.add_state(self._areas, zeros, dist_reduce_fx="sum")

    def update(self, features: Tensor, region: Region) -> None:
        """Take in a batch.

        Args:
            features: (N, U, h, w) floating, finite: a layer's maps, channels first.
            region: masks, boxes or lists of boxes in pixels of ``image_size``, see
                :func:`attribguard.probes.regions.as_region`.

        Raises:
            ShapeError: if sizes, numbers of images, or the number of units differ.
            TypeMismatchError: if an argument is of the wrong kind.
            RangeError: if a map is not finite, or a box or mask is bad.
        """
        maps, shares, annotated = self._read(features, region)
        maps, inside = maps[annotated], shares[annotated].double().flatten(1)
        areas = torch.zeros(2, *self.thresholds.shape, dtype=torch.float64, device=maps.device)
        for index, units, active in self._active(maps, shares.shape[1:]):
            cells = active.flatten(2).double()
            both = (cells @ inside[:, :, None]).sum((0, 2))
            areas[0, index, units] = both
            areas[1, index, units] = cells.sum((0, 2)) + inside.sum() - both
        setattr(self, self._areas, getattr(self, self._areas) + areas.to(self.device))
        self.without_region = self.without_region + (~annotated).sum().to(self.device)

    def compute(self) -> Any:
        """The overlap of each unit.

        Returns:
            (U,) in [0, 1], a 0-d tensor for one unit; with named thresholds a dict with ``"iou@name"`` for each; nan
            where no image has a region.
        """
        both, union = getattr(self, self._areas)
        named = self._named("iou", (both / union).float())
        return named if self.names else named["iou"]

    def plot(self, val: Any = None, ax: Any = None, *, units: int = UNITS_SHOWN) -> Any:
        """Draw the units of the largest overlap, as bars; for several thresholds those of the first.

        Args:
            val: a result of ``compute``; the current one by default.
            ax: matplotlib axes to draw on; new ones by default.
            units: how many to show at most.

        Returns:
            The figure and the axes.
        """
        result = self.compute() if val is None else val
        named = result if isinstance(result, dict) else {"iou": result}
        series = {name: torch.atleast_1d(overlaps) for name, overlaps in named.items()}
        best = next(iter(series.values())).argsort(descending=True, stable=True)[:units]
        heights = {name: overlaps[best].tolist() for name, overlaps in series.items()}
        ax = draw_bars(ax, [str(unit) for unit in best.tolist()], heights, "intersection over union")
        ax.set_xlabel("unit")
        return ax.figure, ax
