"""The picture of a scan: where in the image the certainty drops, and how it goes from position to position."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from attribguard.probes.patch_swap.scan_result import ScanResult

__all__ = ["draw"]

# Okabe and Ito's colours, which colour-blind readers tell apart.
_ORANGE, _BLUE = "#E69F00", "#0072B2"


def draw(scan: ScanResult, axes: tuple[Axes, Axes] | None = None) -> Figure:
    """Draw a scan.

    Args:
        scan: the result.
        axes: for the map and the curves; made by default.

    Returns:
        Their figure.
    """
    if axes is None:
        figure = Figure(figsize=(8.4, 3.4), layout="constrained")
        axes = tuple(figure.subplots(1, 2, width_ratios=(1, 1.8)))
    _draw_map(scan, axes[0])
    _draw_curves(scan, axes[1])
    return cast(Figure, axes[0].get_figure())


def _draw_map(scan: ScanResult, axis: Axes) -> None:
    axis.imshow(scan.picture, cmap="gray")
    heat = scan.heatmap()
    # Weak drops let the image show through; nan, where nothing was scanned, does so wholly.
    strength = np.nan_to_num(np.clip(heat / max(np.nanmax(heat), 1e-12), 0, 1))
    shown = axis.imshow(heat, cmap="inferno", vmin=0, vmax=max(np.nanmax(heat), 1e-12), alpha=0.15 + 0.75 * strength)
    cast(Figure, axis.get_figure()).colorbar(shown, ax=axis, label="drop of certainty", shrink=0.85)
    top, left = scan.grid.corner(scan.argmin)
    side = scan.grid.patch
    axis.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, edgecolor=_ORANGE, linewidth=2))
    axis.set(xticks=[], yticks=[], title="first source, mean drop")


def _draw_curves(scan: ScanResult, axis: Axes) -> None:
    sources, targets, positions = scan.certainty.shape
    numbers = np.arange(positions)
    axis.plot(numbers, scan.curves.T, color="0.75", linewidth=0.8)
    axis.plot([], [], color="0.75", linewidth=0.8, label="each source")
    axis.plot(numbers, scan.curves.mean(0), color=_BLUE, linewidth=2, label="mean")
    axis.axhline(scan.baseline.mean(), color="black", linestyle="--", linewidth=1, label="nothing swapped")
    axis.plot(scan.argmin, scan.curves.mean(0)[scan.argmin], "o", color=_ORANGE, markersize=8)
    axis.annotate(
        f"position {scan.argmin}",
        (scan.argmin, scan.curves.mean(0)[scan.argmin]),
        xytext=(8, -4) if scan.argmin < 0.8 * positions else (-8, -4),
        textcoords="offset points",
        ha="left" if scan.argmin < 0.8 * positions else "right",
    )
    axis.set(xlabel="position, row by row from 0", ylabel="certainty of the source's class", ylim=(0, 1.02))
    axis.set_title(
        f"T = {scan.passes} passes, N = {targets} targets, S = {sources} sources, seed {scan.seed}", fontsize=10
    )
    axis.legend(loc="lower left", frameon=False)
