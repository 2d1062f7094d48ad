"""Where each network of a table looks on the same few images: a line of panels a row."""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from attribguard.reproduce.jobs import Record
from attribguard.reproduce.recipe import Recipe
from attribguard.reproduce.table import row_records

__all__ = ["draw_panels"]


def draw_panels(recipe: Recipe, size: str, seeds: int, records: Sequence[Record]) -> bytes | None:
    """Draw the maps that a row's trainings keep over the recipe's panels, each scaled by its own maximum.

    Args:
        recipe: the table, with ``panels``.
        size: of the run.
        seeds: how many.
        records: of the file.

    Returns:
        A PNG file, or ``None`` where no training keeps a map.
    """
    kept = {
        row.name: next(record["maps"] for record in some if "maps" in record)
        for row, some in row_records(recipe, size, seeds, records)
        if any("maps" in record for record in some)
    }
    if not kept or recipe.panels is None:
        return None
    shown = recipe.panels(recipe.sizes[size].settings)
    lines = ["image", *kept]
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(1.7 * len(shown) + 1.6, 1.5 * len(lines) + 0.4), dpi=100, layout="constrained")
        for line, axes in zip(lines, figure.subplots(len(lines), len(shown), squeeze=False), strict=True):
            axes[0].set_ylabel(line.replace(", ", ",\n"), rotation=0, ha="right", va="center", fontsize=8)
            for axis, panel in zip(axes, shown, strict=True):
                image, outline = panel.image.numpy(), panel.outline.numpy()
                height, width = image.shape
                axis.imshow(image, cmap="gray", extent=(0, width, height, 0))
                if line in kept:
                    cells = np.array(kept[line][panel.title], dtype=np.float64)
                    over = {"cmap": "magma", "alpha": 0.55, "interpolation": "bilinear"}
                    axis.imshow(cells, vmin=0, vmax=max(np.nanmax(cells), 1e-12), extent=(0, width, height, 0), **over)
                else:
                    axis.set_title(panel.title, fontsize=8)
                if outline.any():
                    middles = np.arange(width) + 0.5, np.arange(height) + 0.5
                    axis.contour(*middles, outline, levels=[0.5], colors="cyan", linewidths=0.8)
                axis.set(xticks=[], yticks=[])
        figure.suptitle(f"{recipe.title}: Grad-CAM", fontsize=10)
        file = io.BytesIO()
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
