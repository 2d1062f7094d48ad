"""What a reader does with a file it cannot use: raise at once, or leave it out and say so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from attribguard.errors import DataError, check_choice

__all__ = ["OnError", "Refusals"]

OnError = Literal["raise", "skip"]


class Refusals:
    """Meets each file or line that cannot be used.

    Args:
        on_error: ``"raise"``: the first is an error; ``"skip"``: all are left out and listed.

    Attributes:
        skipped: (file, reason) of what was left out, in the order in which it was met.

    Raises:
        RangeError: if ``on_error`` is neither.

    Example:
        >>> refusals = Refusals("skip")
        >>> with refusals.at("labels.csv", 3, "a.png"):
        ...     raise DataError(got="no label", needed="a label", fix="add it")
        >>> refusals.skipped
        [('a.png', 'got no label (line 3 of labels.csv); needed a label; add it')]
    """

    def __init__(self, on_error: OnError) -> None:
        check_choice("on_error", on_error, ("raise", "skip"))
        self.on_error, self.skipped = on_error, list[tuple[str, str]]()

    def refuse(self, file: str, error: DataError) -> None:
        """Raise the error, or note it.

        Args:
            file: which is refused.
            error: why.

        Raises:
            DataError: the error, if errors are to be raised.
        """
        if self.on_error == "raise":
            raise error
        self.skipped.append((file, str(error)))

    @contextmanager
    def about(self, file: str) -> Iterator[None]:
        """Within it, a ``DataError`` about this file is raised or noted, as by :meth:`refuse`."""
        try:
            yield
        except DataError as error:
            self.refuse(file, error)

    @contextmanager
    def at(self, table: str | Path, line: int, file: str) -> Iterator[None]:
        """As :meth:`about`; the error also gets the table and the line.

        Args:
            table: the table's path.
            line: number of the line, from 1.
            file: which that line is about.

        Yields:
            Nothing.

        Raises:
            DataError: what was raised within, if errors are to be raised.
        """
        with self.about(file):
            try:
                yield
            except DataError as error:
                got = f"{error.got} (line {line} of {table})"
                raise DataError(got=got, needed=error.needed, fix=error.fix) from error.__cause__
