"""Two bars on a terminal: the trainings of a table, and the steps of the one that runs."""

from __future__ import annotations

from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from attribguard.reproduce.run import Watch

__all__ = ["BarWatch"]


class BarWatch(Watch):
    """Shows a run on the standard error stream; use it in a ``with`` block."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._all = self._progress.add_task("trainings", total=None, visible=False)
        self._one = self._progress.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def job(self, title: str, done: int, total: int) -> None:
        """A training begins, or has ended."""
        if not self._progress.live.is_started:  # not before, so that bad input gives its one line only
            self._progress.start()
        self._progress.update(self._all, completed=done, total=total, visible=True)
        self._progress.update(self._one, description=title, completed=0, total=None, visible=title != "done")

    def step(self, done: int, total: int) -> None:
        """A training moves on."""
        self._progress.update(self._one, completed=done, total=total)
