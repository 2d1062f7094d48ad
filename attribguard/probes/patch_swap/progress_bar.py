"""A bar on a terminal, for scans that take a while."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress

__all__ = ["progress_bar"]


def progress_bar(shown: bool) -> Progress:
    """A bar on the standard error stream, gone when it ends; none where nobody watches.

    Args:
        shown: whether it is wanted.
    """
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not (shown and console.is_terminal))
