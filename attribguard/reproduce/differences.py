"""Differences between rows, seed by seed, with the interval that so few seeds allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from scipy import stats

from attribguard.reproduce.jobs import Record
from attribguard.reproduce.recipe import Recipe, Row

__all__ = ["comparison_table", "difference"]

_LEVEL = 0.95


def comparison_table(recipe: Recipe, rows: Sequence[tuple[Row, list[Record]]]) -> str:
    """The recipe's comparisons in Markdown.

    Args:
        recipe: the table.
        rows: each with its finished trainings.
    """
    found = {row.name: {record["seed"]: record["metrics"] for record in records} for row, records in rows}
    head = ["row", "less", *(recipe.metrics[metric] for metric in recipe.differences)]
    if recipe.parts:  # a heading may stand in several parts
        head[2:] = recipe.differences
    lines = [
        [row, against, *(_cell(found[row], found[against], metric) for metric in recipe.differences)]
        for row, against in recipe.comparisons
        if found.get(row) and found.get(against)
    ]
    rule = ["---", "---", *["---:"] * len(recipe.differences)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))
    return (
        "Differences between rows, the mean over the seeds that both have, with Student's 95 % interval of the paired "
        "differences. The seeds share images and splits; the interval speaks of other seeds, and is not corrected for "
        f"the number of comparisons. **Bold** leaves 0 out.\n\n{table}"
    )


def difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """The mean of paired differences and Student's interval.

    Args:
        ours: a figure a seed.
        theirs: of the same seeds.

    Returns:
        Mean, lower and upper end; the ends are nan for a single pair, and all three for none.

    Example:
        >>> [round(value, 3) for value in difference([3.0, 4.0, 5.0], [1.0, 1.0, 1.0])]
        [3.0, 0.516, 5.484]
    """
    paired = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not paired:
        return math.nan, math.nan, math.nan
    middle = mean(paired)
    if len(paired) < 2:
        return middle, math.nan, math.nan
    half = float(stats.t.ppf((1 + _LEVEL) / 2, len(paired) - 1)) * stdev(paired) / math.sqrt(len(paired))
    return middle, middle - half, middle + half


Figures = Mapping[int, Mapping[str, float | None]]


def _cell(ours: Figures, theirs: Figures, metric: str) -> str:
    pairs = [
        (a, b)
        for seed in sorted(ours.keys() & theirs.keys())
        if (a := ours[seed].get(metric)) is not None and (b := theirs[seed].get(metric)) is not None
    ]
    if not pairs:
        return ""
    middle, low, high = difference(*zip(*pairs, strict=True))
    if math.isnan(low):
        return f"{middle:+.3f}"
    text = f"{middle:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
