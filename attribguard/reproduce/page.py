"""The page of results: every table whose rows are in a folder, made of nothing but those rows and the recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attribguard.reproduce.pictures import pictures_of
from attribguard.reproduce.recipe import Recipe
from attribguard.reproduce.records import read
from attribguard.reproduce.table import section

__all__ = ["results_page", "results_pictures"]

_SIZE = "default"
_HEAD = """# Results

The tables of the papers, run again with `attribguard reproduce`: ours beside the paper's, mean ± standard deviation
over the seeds, at the last epoch. Every number of ours comes from a line of `benchmarks/results/NAME.jsonl`, which also
holds the settings, the epoch curves and the seconds of each training; `python -m benchmarks.results_page` makes this
page of them. Results that speak against a method stand here like all others.

The minutes below a table are those of its trainings one after the other, in one thread each, while other work shared
the machine's two cores; the command makes as many at once as there are cores. With `--quick`, which shows that a table
runs, each of the seven took 1 to 4 minutes, two trainings at once on a loaded machine of two cores. `--full` is the
paper's own size, for a GPU, and has not been run for this page.
"""


def results_page(folder: Path, recipes: Mapping[str, Recipe]) -> str:
    """The page in Markdown.

    Args:
        folder: of the files ``NAME.jsonl``.
        recipes: all tables.

    Raises:
        DataError: if a file holds a line that is no finished training.
    """
    parts, waiting = [_HEAD], []
    for name, recipe in recipes.items():
        if records := read(folder / f"{name}.jsonl"):
            seeds = recipe.sizes[_SIZE].seeds
            pictures = [f"images/{file}" for file in pictures_of(recipe, _SIZE, seeds, records, f"results-{name}")]
            parts.append(f"## {recipe.title}\n\n" + section(recipe, _SIZE, seeds, records, pictures))
        else:
            waiting.append(f"`{name}` ({recipe.title})")
    if waiting:
        names = ", ".join(waiting)
        parts.append(f"## Not run yet\n\nThe default run of these tables has not been made: {names}.\n")
    return "\n".join(parts)


def results_pictures(folder: Path, recipes: Mapping[str, Recipe]) -> dict[str, bytes]:
    """The page's pictures, PNG files by name.

    Args:
        folder: of the files ``NAME.jsonl``.
        recipes: all tables.

    Raises:
        DataError: if a file holds a line that is no finished training.
    """
    pictures: dict[str, bytes] = {}
    for name, recipe in recipes.items():
        if records := read(folder / f"{name}.jsonl"):
            pictures |= pictures_of(recipe, _SIZE, recipe.sizes[_SIZE].seeds, records, f"results-{name}")
    return pictures
