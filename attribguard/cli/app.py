"""All commands under one name."""

from __future__ import annotations

from typing import Annotated

import typer

from attribguard import __version__
from attribguard.cli.audit_command import audit_, scan_
from attribguard.cli.demo_command import demo
from attribguard.cli.reproduce_command import reproduce_

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attribguard {__version__}")
        raise typer.Exit


@app.callback()
def _attribguard(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Train image classifiers to use what an annotation says is relevant, and find out whether they do."""


app.command()(demo)
app.command("audit")(audit_)
app.command("scan")(scan_)
app.command("reproduce")(reproduce_)


def main() -> None:
    """Run the command line."""
    app()
