"""How commands end that cannot go on: one line on the error stream, and no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from attribguard.errors import AttribGuardError

__all__ = ["refusing"]


@contextmanager
def refusing(advice: str = "") -> Iterator[None]:
    """End with exit code 2 and one line where the library or the system refuses something, 130 when interrupted.

    Args:
        advice: what to do after an interruption.
    """
    try:
        yield
    except (AttribGuardError, OSError) as error:
        typer.echo(f"attribguard: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("attribguard: interrupted" + (f"; {advice}" if advice else ""), err=True)
        raise typer.Exit(130) from None
