"""What a recipe is: one table of a paper as plain data, and the function that trains one of its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribguard.errors import check_choice

__all__ = ["Outcome", "Panel", "Recipe", "Row", "Run", "Size"]

Settings = Mapping[str, Any]


def _unwatched(done: int, total: int) -> None:
    """Not a lambda, because a run is sent to other processes."""


@dataclass(frozen=True)
class Run:
    """One training that is to be done.

    Attributes:
        settings: everything that its figures depend on, beside seed and data.
        seed: of weights, order, and whatever else is drawn.
        final: False in the search for settings, where validation images alone are measured.
        data: the folder of the data set's files, or ``None``.
        device: where to train.
        on_step: called now and then with the numbers of steps done and to do.
    """

    settings: Settings
    seed: int
    final: bool
    data: Path | None
    device: torch.device
    on_step: Callable[[int, int], None] = _unwatched


@dataclass(frozen=True)
class Outcome:
    """What a training gave.

    Attributes:
        metrics: figures of the last epoch by name.
        curves: a number an epoch by name.
        maps: pictures of what was measured by name, rows of numbers of 0 or more; over the recipe's panels of these
            names where it has panels, otherwise drawn as the mean over seeds.
    """

    metrics: Mapping[str, float]
    curves: Mapping[str, list[float]]
    maps: Mapping[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """An image over which the maps of all rows are drawn.

    Attributes:
        title: of the panel, and of its map in :attr:`Outcome.maps`.
        image: (H, W).
        outline: (H, W), bool: what is outlined; nothing where nobody has annotated it.
    """

    title: str
    image: Tensor
    outline: Tensor


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name: as it stands in the table.
        settings: its own; they go before those of the size.
        paper: metric to the paper's mean and standard deviation (``None`` where it gives none).
        searched: the settings that are chosen on validation data, in this order.
        chosen_by: the row whose choice of settings it takes over, instead of a search of its own.
    """

    name: str
    settings: Settings
    paper: Mapping[str, tuple[float, float | None]] = field(default_factory=dict)
    searched: tuple[str, ...] = ()
    chosen_by: str | None = None


@dataclass(frozen=True)
class Size:
    """How large a run is: ``default``, ``quick`` or ``full``.

    Attributes:
        settings: of all rows.
        seeds: how many.
        search: setting to the values that are tried, the first of them where the search starts; for the rows that
            name the setting in ``searched``. Where a setting has no values here, the row's own or the size's stands.
        rows: names of the rows that are run; all by default.
    """

    settings: Settings
    seeds: int
    search: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    rows: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Recipe:
    """One table.

    Attributes:
        name: of the command.
        title: of the page.
        paper: which table of which paper.
        text: how the run differs from the paper's, known before it was made.
        findings: what the default run showed.
        metrics: metric to heading, in the order of the columns.
        parts: where one table would be too wide, several: each with its title and its metrics.
        comparisons: a row and the row that it is compared with, each.
        differences: the metrics of these comparisons.
        panels: gives the images over which maps are drawn for the settings of a size.
        compared: the metric that is drawn.
        tolerance: a mean that is further than this from the paper's is marked.
        score: the metric on validation data by which settings are chosen, the larger the better.
        rows: in the order of the table and of the run.
        sizes: ``"default"``, ``"quick"`` and ``"full"``.
        train: trains one row.
        needs_data: what ``--data`` must name, or an empty string where everything is drawn.
        takes_data: what ``--data`` may name where everything is drawn by default.
        with_data: the settings that change when it does.
    """

    name: str
    title: str
    paper: str
    text: str
    metrics: Mapping[str, str]
    compared: str
    tolerance: float
    score: str
    rows: tuple[Row, ...]
    sizes: Mapping[str, Size]
    train: Callable[[Run], Outcome]
    needs_data: str = ""
    takes_data: str = ""
    with_data: Settings = field(default_factory=dict)
    findings: str = ""
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()
    comparisons: tuple[tuple[str, str], ...] = ()
    differences: tuple[str, ...] = ()
    panels: Callable[[Settings], list[Panel]] | None = None

    def on_data(self) -> Recipe:
        """The same table on data that may be given, in place of what is drawn; nothing of either is mixed."""
        sizes = {name: replace(size, settings={**size.settings, **self.with_data}) for name, size in self.sizes.items()}
        return replace(self, name=f"{self.name}-files", title=f"{self.title}, on {self.takes_data}", sizes=sizes)

    def row(self, name: str) -> Row:
        """The row of this name.

        Args:
            name: one of the rows'.

        Raises:
            RangeError: if there is none.
        """
        check_choice("row", name, [row.name for row in self.rows])
        return next(row for row in self.rows if row.name == name)

    def rows_of(self, size: str) -> list[Row]:
        """The rows that are run at a size.

        Args:
            size: one of ``sizes``.

        Raises:
            RangeError: if it is unknown.
        """
        check_choice("size", size, self.sizes)
        names = self.sizes[size].rows
        return [row for row in self.rows if names is None or row.name in names]
