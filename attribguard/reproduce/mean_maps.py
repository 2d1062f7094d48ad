"""Where the networks of a table look: the mean map of each row, over images and seeds."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attribguard.reproduce.jobs import Record
from attribguard.reproduce.recipe import Recipe
from attribguard.reproduce.table import row_records

__all__ = ["draw_maps"]

_COLUMNS = 6


def draw_maps(recipe: Recipe, size: str, seeds: int, records: Sequence[Record]) -> bytes | None:
    """Draw a panel for each row whose trainings keep a map; each is scaled by its own maximum.

    Args:
        recipe: the table.
        size: of the run.
        seeds: how many.
        records: of the file.

    Returns:
        A PNG file, or ``None`` where no training keeps a map.
    """
    kept = {
        row.name: np.mean([_cells(record) for record in some if "maps" in record], axis=0)
        for row, some in row_records(recipe, size, seeds, records)
        if any("maps" in record for record in some)
    }
    if not kept:
        return None
    lines = -(-len(kept) // _COLUMNS)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(1.7 * _COLUMNS, 2.1 * lines + 0.4), dpi=100, layout="constrained")
        axes = figure.subplots(lines, _COLUMNS, squeeze=False).flatten()
        for axis in axes:
            axis.set_axis_off()
        for axis, (name, cells) in zip(axes, kept.items(), strict=False):
            axis.imshow(cells, cmap="magma", vmin=0, interpolation="nearest")
            axis.set_title(name.replace(" ", "\n", 1), fontsize=8)
        figure.suptitle(f"{recipe.title}: mean saliency on test images", fontsize=10)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _cells(record: Record) -> NDArray[np.float64]:
    """The record's one map; what was no finite number is nan, and drawn empty."""
    return np.array(next(iter(record["maps"].values())), dtype=np.float64)
