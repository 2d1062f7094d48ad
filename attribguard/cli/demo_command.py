"""The command ``attribguard demo``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from attribguard.cli.refusals import refusing

if TYPE_CHECKING:
    from attribguard.demo import DemoResult

__all__ = ["demo"]

_CAPTION = "valid, test: the distractor on the other side\ninside: share of the saliency within the grown mask"


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Read the ActDiff paper's distractor1.npz to distractor3.npz instead of drawing images."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Write result.json, saliency.png and the page audit.html here.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(metavar="N", help="Of the images, the weights and every draw.")] = 0,
) -> None:
    """Train one network twice, plain and with ActDiff, on images whose distractor changes sides for the test.

    Needs no GPU and no download, and takes well under a minute.
    """
    # Here and not above: help and errors should not wait for what only a training needs.
    from attribguard.demo import PAGE, PICTURE, RESULT, TITLES, run_demo

    with refusing(), contextlib.ExitStack() as stack:
        progress = Progress(console=Console(stderr=True))
        bars = {name: progress.add_task(title, total=1) for name, title in TITLES.items()}

        def show(name: str, done: int, total: int) -> None:
            if not progress.live.is_started:  # not before the first step, so that bad input gives its one line only
                stack.enter_context(progress)
            progress.update(bars[name], completed=done, total=total)

        result = run_demo(out, data=data, seed=seed, on_step=show)
    Console().print(_table(result, TITLES))
    for name in (RESULT, PICTURE, PAGE):
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
