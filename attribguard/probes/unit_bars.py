"""Bars of figures of units or thresholds, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["UNITS_SHOWN", "draw_bars"]

UNITS_SHOWN = 20


def draw_bars(ax: Any, labels: Sequence[str], series: Mapping[str, Sequence[float]], what: str) -> Any:
    """Draw a group of bars for each label, one bar in it for each series.

    Args:
        ax: matplotlib axes to draw on; new ones if ``None``.
        labels: of the groups.
        series: its name to a height for each group.
        what: the heights are, with their unit.

    Returns:
        The axes.
    """
    if ax is None:
        from matplotlib.figure import Figure  # matplotlib takes a while to import

        ax = Figure(figsize=(max(4.0, 1.5 + 0.4 * len(labels)), 3.5), layout="constrained").subplots()
    width = 0.8 / max(1, len(series))
    for i, (name, heights) in enumerate(series.items()):
        shift = (i - (len(series) - 1) / 2) * width
        ax.bar([place + shift for place in range(len(labels))], heights, width, label=name)
    ax.set_xticks(range(len(labels)), labels, rotation=90 if len(labels) > 8 else 0)
    ax.set_ylabel(what)
    if len(series) > 1:
        ax.legend()
    return ax
