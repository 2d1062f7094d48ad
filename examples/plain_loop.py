"""The smallest whole training loop: crosses, a small network, ActDiff, and the AUC where the shortcut is broken.

    python -m examples.plain_loop --seed 0

needs one core of a CPU for half a minute. In the training images a box stands on the side that gives the class away, in
the test images on the other side. Each epoch's line shows what the loss is made of; the last line is the AUC on both.
`--weight 0` trains the same network without the penalty: its test AUC is that of a network that reads the box.

    python -m examples.plain_loop --seed 0 --checkpoint run.ckpt

may be killed at any moment: started again in the same way it goes on, and ends with the same weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Annotated

import torch
import typer
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_auroc

from attribguard import ActDiff, Guard, checkpoint, wrap
from attribguard.data import Crosses
from attribguard.models import actdiff_cnn


def network() -> nn.Module:
    """The network of the ActDiff paper at half its width, with BatchNorm: (N, 1, 28, 28) to (N, 2)."""
    return actdiff_cnn(channels=8, norm="batch")


def guarded(weight: float) -> Guard:
    return wrap(network(), penalties=[ActDiff(weight)], example_input=(1, 28, 28))


def falling(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Over the last third of the steps the rate falls to 0, so that BatchNorm's running statistics catch up."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, 3 * (1 - done / steps)))


def train(
    guard: Guard,
    data: Crosses,
    epochs: int,
    batch: int = 32,
    rate: float = 3e-3,
    *,
    file: Path | None = None,
    every: int = 10,
    settings: Mapping[str, float] | None = None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Train in place; yields each epoch's number, and means of the loss and of its terms without their weights.

    With a `file` the training is saved to it every so many steps, and goes on from it where it is there already; means
    are then over the steps that were left of that epoch. A file of a run with other `settings` is refused.
    """
    loader = checkpoint.ResumableLoader(DataLoader(data, batch_size=batch, shuffle=True))
    optimizer = torch.optim.Adam(guard.parameters(), lr=rate)
    schedule = falling(optimizer, epochs * len(loader))
    step = 0
    if file is not None and file.exists():
        step = checkpoint.load(file, guard, optimizer, settings=settings, schedule=schedule, loader=loader)
    while loader.epoch < epochs:
        guard.train()
        parts = defaultdict(list)
        for x, y, mask in loader:
            optimizer.zero_grad()
            out = guard(x, y, mask=mask)
            out.loss.backward()
            optimizer.step()
            schedule.step()
            for name, value in {"loss": out.loss, **out.terms}.items():
                parts[name].append(value.item())
            step += 1
            if file is not None and step % every == 0:
                checkpoint.save(file, guard, optimizer, step=step, settings=settings, schedule=schedule, loader=loader)
        yield loader.epoch, {name: mean(values) for name, values in parts.items()}


@torch.no_grad()
def auc(model: nn.Module, data: Crosses) -> float:
    """Area under the ROC curve, in eval mode; a guard without a target is its network."""
    model.eval()
    device = next(model.parameters()).device
    logits = torch.cat([model(x.to(device)).cpu() for x, *_ in DataLoader(data, batch_size=256)])
    # In double precision, because large margins would all round to a probability of 1 and become ties.
    return binary_auroc(logits.double().softmax(1)[:, 1], data.targets).item()


def main(
    seed: Annotated[int, typer.Option(min=0, help="Of images, weights and order.")] = 0,
    weight: Annotated[float, typer.Option(min=0, help="Of ActDiff.")] = 10.0,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    images: Annotated[int, typer.Option(min=2, help="To train on.")] = 500,
    file: Annotated[
        Path | None, typer.Option("--checkpoint", metavar="FILE", help="Save to it, and go on from it if it is there.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Save every so many steps.")] = 10,
) -> None:
    """Train a small network on crosses with ActDiff, and see whether it reads the box."""
    torch.set_num_threads(1)  # the figures then do not depend on the machine's cores
    torch.manual_seed(seed)
    data, test = Crosses("train", images, seed=seed), Crosses("test", 128, seed=seed)
    guard = guarded(weight)
    settings = {"seed": seed, "weight": weight, "epochs": epochs, "images": images}
    for epoch, part in train(guard, data, epochs, file=file, every=every, settings=settings):
        if part:  # nothing, where all steps of the epoch were done before
            terms = f"criterion {part['criterion']:.3f} + {weight:g} x actdiff {part['actdiff']:.4f}"
            print(f"epoch {epoch}: loss {part['loss']:.3f} = {terms}")
    model = guard.unwrap()
    print(f"AUC: train {auc(model, data):.3f}, test {auc(model, test):.3f}")


if __name__ == "__main__":
    typer.run(main)
