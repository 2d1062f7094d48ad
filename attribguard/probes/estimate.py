"""Figures with their intervals, as they are reported, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from attribguard.probes.interval import Resampling, Units, mean_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Estimate", "LocalisationSummary"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over images and how sure it is.

    Attributes:
        value: the mean; nan where there is none to take.
        interval: its lower and upper end; nan where there is no spread, see
            :func:`attribguard.probes.interval.mean_interval`.
        n: how many images it is the mean of.
        skipped: how many were left out.
        groups: how many groups (patients) were resampled; ``None`` where images were.
    """

    value: float
    interval: tuple[float, float]
    n: int
    skipped: int
    groups: int | None

    @classmethod
    def of(
        cls,
        values: NDArray[np.float64],
        groups: NDArray[np.int64] | None,
        resampling: Resampling,
        *,
        left_out: int = 0,
    ) -> Estimate:
        """Estimate a mean.

        Args:
            values: (N,); nan is left out and counted.
            groups: (N,) a number for each group, or ``None``.
            resampling: how the interval is drawn.
            left_out: how many images were left out before.

        Example:
            >>> Estimate.of(np.array([0.0, 1.0, np.nan]), None, Resampling(n_resamples=99)).skipped
            1
        """
        defined = ~np.isnan(values)
        units = Units.of(values[defined], None if groups is None else groups[defined])
        n = int(defined.sum())
        return Estimate(
            value=float(values[defined].mean()) if n else np.nan,
            interval=mean_interval(units, resampling),
            n=n,
            skipped=len(values) - n + left_out,
            groups=None if groups is None else len(units.sums),
        )


@dataclass(frozen=True, kw_only=True)
class LocalisationSummary(Estimate):
    """What a localisation metric found, with all that has to stand beside it in a report.

    Attributes:
        metric: its name, with the settings that make it another one.
        normalize: how maps were brought to [0, 1].
        without_region: how many images had no region; they are among ``skipped``, as are those whose value is not
            defined, such as flat maps.
        per_class: class index to its own estimate, where ``update`` was given classes. Images without a region are
            not counted there.
        resampling: confidence level, number of resamples and seed.

    Example:
        >>> part = {"value": 0.412, "interval": (0.38, 0.444), "n": 90, "skipped": 10, "groups": None}
        >>> settings = {"metric": "SoftIoBB", "normalize": "minmax", "resampling": Resampling()}
        >>> print(LocalisationSummary(**part, **settings, without_region=8, per_class={}))
        SoftIoBB 0.412 (95 % interval 0.380 to 0.444), normalize=minmax, n=90, skipped 10 (8 without a region)
    """

    metric: str
    normalize: str
    without_region: int
    per_class: dict[int, Estimate]
    resampling: Resampling

    def __str__(self) -> str:
        low, high = self.interval
        by = "" if self.groups is None else f" in {self.groups} groups"
        return (
            f"{self.metric} {self.value:.3f} ({100 * self.resampling.interval:g} % interval {low:.3f} to {high:.3f}), "
            f"normalize={self.normalize}, n={self.n}{by}, "
            f"skipped {self.skipped} ({self.without_region} without a region)"
        )

    def plot(self, ax: Axes | None = None) -> Figure:
        """Draw the mean and its interval, and those of each class below it.

        Args:
            ax: where to draw; made by default.

        Returns:
            The figure, to be saved or shown.
        """
        from matplotlib.figure import Figure  # matplotlib takes a while to import

        rows = {"all": self, **{f"class {index}": part for index, part in self.per_class.items()}}
        if ax is None:
            ax = Figure(figsize=(6, 1 + 0.35 * len(rows)), layout="constrained").subplots()
        for y, part in enumerate(rows.values()):
            ax.hlines(y, *part.interval, color="0.6", linewidth=3)
            ax.plot(part.value, y, "o", color="black")
        ax.set_yticks(range(len(rows)), [f"{name} (n={part.n})" for name, part in rows.items()])
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xlabel(f"{self.metric}, normalize={self.normalize}, {100 * self.resampling.interval:g} % interval")
        return cast("Figure", ax.get_figure())
