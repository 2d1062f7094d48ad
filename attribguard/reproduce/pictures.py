"""All pictures of a table."""

from __future__ import annotations

from collections.abc import Sequence

from attribguard.reproduce.jobs import Record
from attribguard.reproduce.mean_maps import draw_maps
from attribguard.reproduce.panels import draw_panels
from attribguard.reproduce.plot import draw
from attribguard.reproduce.recipe import Recipe
from attribguard.reproduce.table import MAPS

__all__ = ["pictures_of"]


def pictures_of(recipe: Recipe, size: str, seeds: int, records: Sequence[Record], name: str) -> dict[str, bytes]:
    """PNG files by name: the table's, and its maps where its trainings keep some.

    Args:
        recipe: the table.
        size: of the run.
        seeds: how many.
        records: of the file.
        name: of the files, without an ending.
    """
    pictures = {f"{name}.png": draw(recipe, size, seeds, records)}
    draw_kept = draw_panels if recipe.panels else draw_maps
    if maps := draw_kept(recipe, size, seeds, records):
        pictures[f"{name}{MAPS}"] = maps
    return pictures
