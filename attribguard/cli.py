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
from attribguard.errors import AttribGuardError, RangeError, check_choice

if TYPE_CHECKING:
    from attribguard.demo import DemoResult
    from attribguard.reproduce import Recipe

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


@app.command("reproduce")
def reproduce_(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which table; --list names them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the tables and stop.")] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the data set's files, where a table needs one.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="How many, from 0 on.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write rows, table and picture here.")] = Path("reproduced"),
    device: Annotated[str, typer.Option(help="Where to train, as torch names it.")] = "cpu",
    jobs: Annotated[int, typer.Option(metavar="N", help="Trainings at once, each in a process of its own.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Minutes, one seed: shows that it runs.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The paper's own size, for a GPU.")] = False,
) -> None:
    """Run a table of one of the papers, and write ours beside the paper's.

    Can be interrupted at any time: started again it goes on where it stopped.
    """
    from attribguard.reproduce import RECIPES, reproduce
    from attribguard.reproduce.watch import BarWatch

    if listed:
        Console().print(_recipes(RECIPES))
        return
    try:
        check_choice("NAME", name, RECIPES)
        if quick and full:
            raise RangeError(got="--quick and --full", needed="one of them", fix="leave the other out")
        size = "quick" if quick else "full" if full else "default"
        with BarWatch() as watch:
            files = reproduce(
                RECIPES[name or ""], out, data=data, size=size, seeds=seeds, device=device, jobs=jobs, watch=watch
            )
    except (AttribGuardError, OSError) as error:
        typer.echo(f"attribguard: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("attribguard: interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None
    for file in files:
        typer.echo(file)


def _recipes(recipes: Mapping[str, Recipe]) -> Table:
    table = Table("name", "table", "rows", "data")
    for name, recipe in recipes.items():
        data = recipe.needs_data or (f"drawn, or {recipe.takes_data}" if recipe.takes_data else "drawn")
        table.add_row(name, recipe.title, str(len(recipe.rows)), data)
    return table


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
