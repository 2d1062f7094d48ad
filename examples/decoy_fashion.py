"""Decoys on Fashion-MNIST: which penalty makes a network forget a white cell that gives the class away?

Trains the network of Hagos et al. on images whose class can be read off the place of a white cell, fine-tunes it with
several penalties, and measures the accuracy under the image's own decoy, under another class's, and without one. A
network that does not look at the decoy scores the same three times.

    python examples/decoy_fashion.py --data fashion-mnist --seeds 3 --out decoy.jsonl

needs Fashion-MNIST's own four files in that folder and one core of a CPU, and can be interrupted: rows that are in the
output file already are not measured again.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, Literal, NamedTuple

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import nn

from attribguard import RRR, GradCAMRRR, Penalty, wrap
from attribguard.data import DecoyFashion
from attribguard.errors import AttribGuardError

Row = dict[str, Any]
BATCH = 128
Kind = Literal["class", "random", "none"]
TESTS: dict[str, Kind] = {"own decoy": "class", "another class's": "random", "no decoy": "none"}
KEY = ("method", "epochs", "seed", "images")  # what tells a row from all others
PLAIN = "plain"


class Method(NamedTuple):
    """One training: a penalty, if any, what is annotated, and the epochs after which to measure."""

    penalty: Callable[[], Penalty] | None
    annotate: Literal["places", "instance"] = "places"
    epochs: tuple[int, ...] = (3,)


def hirescam_rrr() -> Penalty:
    """Sees every way in which the decoys' places move any logit; grown by 1 pixel, the convolution's radius."""
    return GradCAMRRR(100.0, cam="hirescam", score="projection", normalize="none", dilate=1)


def eq2(weight: float) -> Penalty:
    """Eq. 2 as the paper has it: Grad-CAM of the true class after ReLU, stretched to [0, 1]."""
    return GradCAMRRR(weight, cam="gradcam", score="target", normalize="minmax")


def eq2_code(weight: float) -> Penalty:
    """Eq. 2 as published in code: predicted class, before the activation, no ReLU, constant channel weights."""
    return GradCAMRRR(
        weight, layer="conv", cam="gradcam", score="predicted", normalize="minmax", relu=False, constant_weights=True
    )


METHODS = {
    PLAIN: Method(None, epochs=(2,)),
    "trained on without a penalty": Method(None),
    "HiResCAM of a projection, λ 100": Method(hirescam_rrr, epochs=(3, 6)),
    "the same, only the white cell annotated": Method(hirescam_rrr, "instance", epochs=(3, 6)),
    "Eq. 2, λ 1": Method(lambda: eq2(1.0)),
    "Eq. 2, λ 10": Method(lambda: eq2(10.0)),
    "Eq. 2, published code, λ 1": Method(lambda: eq2_code(1.0)),
    "Eq. 2, published code, λ 10": Method(lambda: eq2_code(10.0)),
    "input gradient of a projection, λ 0.1": Method(lambda: RRR(0.1, score="projection")),
}


def paper_network() -> nn.Module:
    """One convolution, ReLU, pooling, dropout, one linear layer (Hagos et al., Section 3.2.1)."""
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(1, 32, 3, padding=1))
    network.add_module("relu", nn.ReLU())
    network.add_module("pool", nn.MaxPool2d(2))
    network.add_module("dropout", nn.Dropout(0.5))
    network.add_module("flatten", nn.Flatten())
    network.add_module("linear", nn.Linear(32 * 14 * 14, 10))
    return network


def train(
    network: nn.Module,
    data: DecoyFashion,
    penalties: Sequence[Penalty],
    epochs: int,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Train in place with Adam; yields the number of each finished epoch, in eval mode."""
    guard = wrap(network, penalties=penalties, example_input=data[:1]["image"])
    optimizer = torch.optim.Adam(guard.parameters(), lr=1e-3)
    for epoch in range(1, epochs + 1):
        guard.train()
        for batch in torch.randperm(len(data)).split(BATCH):
            items = data[batch]
            optimizer.zero_grad()
            guard(items["image"], items["target"], mask=items["mask"]).loss.backward()
            optimizer.step()
            on_step()
        guard.eval()
        yield epoch
    guard.unwrap()


@torch.no_grad()
def accuracy(network: nn.Module, data: DecoyFashion) -> float:
    """Share of right answers; in slices, because the maps of 10,000 images would take a gigabyte."""
    slices = (data[start : start + BATCH] for start in range(0, len(data), BATCH))
    return sum(int((network(part["image"]).argmax(1) == part["target"]).sum()) for part in slices) / len(data)


def run_seed(seed: int, images: int, data: Path, done: set[tuple[Any, ...]], progress: Progress) -> Iterator[Row]:
    """Train and fine-tune with one seed; yields a row for each measurement that is not done yet."""

    def missing(name: str) -> list[int]:
        return [epoch for epoch in METHODS[name].epochs if (name, epoch, seed, images) not in done]

    if not (todo := [name for name in METHODS if missing(name)]):
        return
    tests = {name: DecoyFashion("test", data, kind) for name, kind in TESTS.items()}
    torch.manual_seed(seed)
    start = paper_network()
    for name in (PLAIN, *todo[todo[0] == PLAIN :]):  # all others start from the plain one
        method = METHODS[name]
        network = start if name == PLAIN else copy.deepcopy(start)
        penalties = [method.penalty()] if method.penalty else []
        train_set = DecoyFashion("train", data, annotate=method.annotate, n=images)
        bar = progress.add_task(f"seed {seed}: {name}", total=method.epochs[-1] * math.ceil(images / BATCH))
        torch.manual_seed(seed)
        began = time.perf_counter()
        for epoch in train(network, train_set, penalties, method.epochs[-1], partial(progress.advance, bar)):
            if epoch in missing(name):
                key = dict(zip(KEY, (name, epoch, seed, images), strict=True))
                seconds = {"seconds": round(time.perf_counter() - began, 1)}
                yield key | {test: accuracy(network, test_set) for test, test_set in tests.items()} | seconds


def read_rows(out: Path) -> dict[tuple[Any, ...], Row]:
    """The rows of an earlier run, if there was one, by their key."""
    lines = out.read_text("utf-8").splitlines() if out.exists() else []
    try:
        return {tuple(row[name] for name in KEY): row for row in map(json.loads, lines)}
    except (ValueError, LookupError, TypeError) as error:
        raise typer.BadParameter(f"{out} holds a line that is no row ({error}); remove it, or name another") from None


def summary(rows: list[Row]) -> Table:
    """Mean and standard deviation over the seeds."""
    table = Table("fine-tuned with", "epochs", *TESTS, "seeds", title="Accuracy on the 10,000 test images")
    for name, method in METHODS.items():
        for epochs in method.epochs:
            chosen = [row for row in rows if (row["method"], row["epochs"]) == (name, epochs)]
            if chosen:
                cells = [mean_and_sd([row[test] for row in chosen]) for test in TESTS]
                table.add_row(name, str(epochs), *cells, str(len(chosen)))
    return table


def mean_and_sd(values: list[float]) -> str:
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else f"{values[0]:.3f}"


def main(
    data: Annotated[Path, typer.Option(help="Folder of Fashion-MNIST's four files.")],
    seeds: Annotated[int, typer.Option(min=1, help="How many, from 0 on.")] = 3,
    images: Annotated[int, typer.Option(min=1, max=60_000, help="Of the training set, the first ones.")] = 12_000,
    out: Annotated[Path, typer.Option(help="JSON lines, one a measurement; appended to.")] = Path("decoy.jsonl"),
) -> None:
    """Fine-tune a network that reads decoys with several penalties, and see which of them makes it stop."""
    torch.set_num_threads(1)  # the network is too small to share; the figures then do not depend on the machine's cores
    rows = read_rows(out)
    try:
        with Progress(console=Console(stderr=True)) as progress:
            for seed in range(seeds):
                for row in run_seed(seed, images, data, set(rows), progress):
                    with out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    rows[tuple(row[name] for name in KEY)] = row
    except (AttribGuardError, OSError) as error:
        typer.echo(f"decoy_fashion: {error}", err=True)
        raise typer.Exit(2) from None
    Console().print(summary([row for row in rows.values() if row["images"] == images and row["seed"] < seeds]))


if __name__ == "__main__":
    typer.run(main)
