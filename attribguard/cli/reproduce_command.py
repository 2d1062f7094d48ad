"""The command ``attribguard reproduce``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from attribguard.cli.refusals import refusing
from attribguard.errors import RangeError, check_choice

if TYPE_CHECKING:
    from attribguard.reproduce import Recipe

__all__ = ["reproduce_"]


def reproduce_(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which table; --list names them.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the tables and stop.")] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the data set's files, where a table needs one.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="How many, from 0 on.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Write rows, table and picture here.")] = Path("reproduced"),
    device: Annotated[str, typer.Option(help="Where to train, as torch names it.")] = "cpu",
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Trainings at once, a process each; by default as many as there are CPU cores."),
    ] = None,
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
    with refusing(advice="the same command goes on where it stopped"):
        check_choice("NAME", name, RECIPES)
        if quick and full:
            raise RangeError(got="--quick and --full", needed="one of them", fix="leave the other out")
        size = "quick" if quick else "full" if full else "default"
        jobs = default_jobs(device) if jobs is None else jobs
        with BarWatch() as watch:
            files = reproduce(
                RECIPES[name or ""], out, data=data, size=size, seeds=seeds, device=device, jobs=jobs, watch=watch
            )
    for file in files:
        typer.echo(file)


def default_jobs(device: str, environment: Mapping[str, str] = os.environ) -> int:
    """Trainings at once where nobody says: one a core, for each computes on one thread.

    Args:
        device: where to train, as torch names it; an accelerator gets one training at a time.
        environment: in which a launcher such as torchrun tells how many processes it has started; each gets one.
    """
    return os.cpu_count() or 1 if device == "cpu" and "WORLD_SIZE" not in environment else 1


def _recipes(recipes: Mapping[str, Recipe]) -> Table:
    table = Table("name", "table", "rows", "data")
    for name, recipe in recipes.items():
        data = recipe.needs_data or (f"drawn, or {recipe.takes_data}" if recipe.takes_data else "drawn")
        table.add_row(name, recipe.title, str(len(recipe.rows)), data)
    return table
