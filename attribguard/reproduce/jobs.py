"""Which trainings a table still needs: a small search for each row's settings, then its seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attribguard.reproduce.recipe import Recipe, Row, Size

__all__ = ["SEARCH_SEED", "Job", "Record", "choose", "count_jobs", "finals", "index", "known_jobs"]

Record = dict[str, Any]

SEARCH_SEED = 1000
"""The seed of every search, which no table counts: settings are not chosen by the weights and splits that are shown."""


@dataclass(frozen=True)
class Job:
    """One training of a row.

    Attributes:
        row: its name.
        final: whether it counts for the table, or for the search.
        seed: of the training.
        settings: all of them.
    """

    row: str
    final: bool
    seed: int
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What tells this training from all others: nothing that stands here may differ."""
        return json.dumps([self.row, self.final, self.seed, self.settings], sort_keys=True)


def index(records: Iterable[Record]) -> dict[str, Record]:
    """The records by the key of their job.

    Args:
        records: as read from the file; the last of equal ones stays.
    """
    return {Job(r["row"], r["final"], r["seed"], r["settings"]).key: r for r in records}


def choose(
    recipe: Recipe, size: Size, row: Row, done: Mapping[str, Record]
) -> tuple[list[Job], Mapping[str, Any] | None]:
    """Choose a row's settings on validation data, one after the other: the best value of the first, then of the next.

    Args:
        recipe: the table.
        size: of the run.
        row: one of its rows.
        done: the finished trainings by key.

    Returns:
        The trainings of the search, done or not, as far as they are known; and the settings as soon as all are done. Of
        equal scores the value that is named first wins, and a training that broke down loses against all others.
    """
    owner = recipe.row(row.chosen_by or row.name)
    searched = [name for name in owner.searched if name in size.search]
    settings = {**size.settings, **owner.settings, **{name: size.search[name][0] for name in searched}}
    tried: dict[str, Job] = {}
    for name in searched:
        candidates = [settings | {name: value} for value in size.search[name]]
        jobs = [Job(owner.name, False, SEARCH_SEED, candidate) for candidate in candidates]
        tried |= {job.key: job for job in jobs}
        if not all(job.key in done for job in jobs):
            return list(tried.values()), None
        scores = [done[job.key]["metrics"].get(recipe.score) for job in jobs]
        ranks = [-math.inf if score is None else score for score in scores]
        settings = candidates[ranks.index(max(ranks))]
    chosen = {name: settings[name] for name in searched}
    return list(tried.values()), {**size.settings, **row.settings, **chosen}


def finals(recipe: Recipe, size: Size, row: Row, seeds: int, done: Mapping[str, Record]) -> list[Job]:
    """The trainings that count for a row, done or not; none while its settings are not chosen.

    Args:
        recipe: the table.
        size: of the run.
        row: one of its rows.
        seeds: how many.
        done: the finished trainings by key.
    """
    _, settings = choose(recipe, size, row, done)
    return [] if settings is None else [Job(row.name, True, seed, settings) for seed in range(seeds)]


def known_jobs(recipe: Recipe, size: Size, rows: Sequence[Row], seeds: int, done: Mapping[str, Record]) -> list[Job]:
    """The trainings of a table, done or not, in the order of the rows, as far as the searches have come.

    Args:
        recipe: the table.
        size: of the run.
        rows: those to be run.
        seeds: how many.
        done: the finished trainings by key.
    """
    known: dict[str, Job] = {}
    for row in rows:
        tried, _ = choose(recipe, size, row, done)
        known |= {job.key: job for job in [*tried, *finals(recipe, size, row, seeds, done)]}
    return list(known.values())


def count_jobs(recipe: Recipe, size: Size, rows: Sequence[Row], seeds: int) -> int:
    """How many trainings the rows take in all, those of the search included.

    Args:
        recipe: the table.
        size: of the run.
        rows: those to be run.
        seeds: how many.
    """
    owners = {row.chosen_by or row.name for row in rows}
    count = len(rows) * seeds
    for owner in owners:
        tried = [len(size.search[name]) for name in recipe.row(owner).searched if name in size.search]
        count += sum(tried) - max(0, len(tried) - 1)  # each further search holds the best of the one before
    return count
