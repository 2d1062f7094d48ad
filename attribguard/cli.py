"""The command line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from attribguard import __version__
from attribguard.errors import AttribGuardError

if TYPE_CHECKING:
    from attribguard.demo import DemoResult

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_show_locals=False)

_CAPTION = "valid, test: the distractor on the other side\ninside: share of the saliency within the grown mask"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"attribguard {__version__}")
        raise typer.Exit


# Without a callback typer would make a lone command the whole program, and `attribguard demo` an error.
@app.callback()
def _attribguard(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Train image classifiers to use what an annotation says is relevant."""


@app.command()
def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Read the ActDiff paper's distractor1.npz to distractor3.npz instead of drawing images."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write result.json and saliency.png here.")] = Path("demo"),
    seed: Annotated[int, typer.Option(metavar="N", help="Of the images, the weights and every draw.")] = 0,
) -> None:
    """Train one network twice, plain and with ActDiff, on images whose distractor changes sides for the test.

    Needs no GPU and no download, and takes well under a minute.
    """
    # Here and not above: help and errors should not wait for what only a training needs.
    from attribguard.demo import PICTURE, RESULT, TITLES, run_demo

    with contextlib.ExitStack() as stack:
        progress = Progress(console=Console(stderr=True))
        bars = {name: progress.add_task(title, total=1) for name, title in TITLES.items()}

        def show(name: str, done: int, total: int) -> None:
            if not progress.live.is_started:  # not before the first step, so that bad input gives its one line only
                stack.enter_context(progress)
            progress.update(bars[name], completed=done, total=total)

        try:
            result = run_demo(out, data=data, seed=seed, on_step=show)
        except (AttribGuardError, OSError) as error:
            stack.close()
            typer.echo(f"attribguard: {error}", err=True)
            raise typer.Exit(2) from None
    Console().print(_table(result, TITLES))
    for name in (RESULT, PICTURE):
        # Not through rich, which would wrap a long path and take brackets for markup.
        typer.echo(out / name)


def _table(result: DemoResult, titles: Mapping[str, str]) -> Table:
    table = Table(title=f"seed {result.seed}, {result.seconds:.0f} s", caption=_CAPTION, caption_justify="left")
    table.add_column("")
    for heading in ("train AUC", "valid AUC", "test AUC", "inside"):
        table.add_column(heading, justify="right")
    for name, title in titles.items():
        scores = getattr(result, name)
        aucs = (f"{auc:.3f}" for auc in (scores.train_auc, scores.valid_auc, scores.test_auc))
        table.add_row(title, *aucs, f"{scores.inside:.0%}")
    return table


def main() -> None:
    """Run the command line."""
    app()
