"""The picture of a table: one metric, ours and the paper's, a line a row."""

from __future__ import annotations

import io
from collections.abc import Sequence
from statistics import mean, stdev

import matplotlib
from matplotlib.figure import Figure

from attribguard.reproduce.jobs import Record
from attribguard.reproduce.recipe import Recipe
from attribguard.reproduce.table import row_records

__all__ = ["draw"]

_BLUE, _ORANGE = "#0072B2", "#D55E00"  # Okabe and Ito


def draw(recipe: Recipe, size: str, seeds: int, records: Sequence[Record]) -> bytes:
    """Draw the compared metric of all rows.

    Args:
        recipe: the table.
        size: of the run.
        seeds: how many.
        records: of the file.

    Returns:
        A PNG file.
    """
    rows = row_records(recipe, size, seeds, records)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(8, 1.4 + 0.28 * len(rows)), dpi=120, layout="constrained")
        axis = figure.subplots()
        for place, (row, some) in enumerate(rows):
            values = [value for record in some if (value := record["metrics"].get(recipe.compared)) is not None]
            if values:
                axis.plot(values, [place] * len(values), "o", color=_BLUE, alpha=0.35, markersize=4)
                spread = stdev(values) if len(values) > 1 else 0.0
                axis.errorbar(mean(values), place, xerr=spread, fmt="o", color=_BLUE, capsize=3)
            if recipe.compared in row.paper:
                value, width = row.paper[recipe.compared]
                axis.errorbar(value, place + 0.25, xerr=width or 0.0, fmt="D", color=_ORANGE, mfc="white", capsize=2)
        axis.plot([], [], "o", color=_BLUE, label="ours: mean ± sd, and each seed")
        if any(recipe.compared in row.paper for row, _ in rows):
            axis.plot([], [], "D", color=_ORANGE, mfc="white", label="paper")
        axis.set_yticks(range(len(rows)), [row.name for row, _ in rows], fontsize=8)
        axis.set_ylim(len(rows) - 0.2, -0.8)  # the first row on top, and no empty ones
        axis.grid(axis="x", alpha=0.3)
        axis.set_xlabel(recipe.metrics[recipe.compared])
        axis.set_title(recipe.title)
        figure.legend(loc="outside lower right", fontsize=8, frameon=False, ncols=2)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
