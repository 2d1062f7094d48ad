"""A guard in a loop of one's own under Hugging Face's accelerate: any device, several processes, mixed precision.

    accelerate launch --module examples.accelerate_loop --precision bf16 --accumulate 2
    python -m examples.accelerate_loop

needs `accelerate` (pip install accelerate). It trains on crosses (see `plain_loop.py`) and prints the AUC.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import torch
import typer
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from attribguard import GuardOutput
from attribguard.data import Crosses
from examples.plain_loop import auc, falling, guarded


class Precision(StrEnum):
    """What accelerate knows as mixed precision."""

    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


def train(
    accelerator: Accelerator,
    data: Crosses,
    epochs: int,
    weight: float = 10.0,
    batch: int = 32,
    on_step: Callable[[GuardOutput], None] = lambda out: None,
) -> nn.Module:
    """Train a new network; gives it without the guard and without what accelerate has put around it."""
    guard = guarded(weight)
    loader = DataLoader(data, batch_size=batch, shuffle=True)
    optimizer = torch.optim.Adam(guard.parameters(), lr=3e-3)
    updates = epochs * -(-len(loader) // accelerator.gradient_accumulation_steps)
    schedule = falling(optimizer, updates)
    # The guard is prepared and not its network, so that a whole step is one call of what accelerate prepared.
    guard, optimizer, loader, schedule = accelerator.prepare(guard, optimizer, loader, schedule)
    for _ in range(epochs):
        guard.train()
        for x, y, mask in loader:
            with accelerator.accumulate(guard):
                out = guard(x, y, mask=mask)  # terms are means over the batch, so accumulated batches add up
                accelerator.backward(out.loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(guard.parameters(), 5.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                on_step(out)
    return accelerator.unwrap_model(guard).unwrap()


def main(
    seed: Annotated[int, typer.Option(min=0, help="Of images, weights and order.")] = 0,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    images: Annotated[int, typer.Option(min=2, help="To train on.")] = 500,
    precision: Annotated[Precision, typer.Option(help="fp16 needs an accelerator.")] = Precision.no,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches a step of the optimizer.")] = 1,
) -> None:
    """Train a small network on crosses with ActDiff under accelerate."""
    accelerator = Accelerator(mixed_precision=precision.value, gradient_accumulation_steps=accumulate)
    torch.manual_seed(seed)
    data, test = Crosses("train", images, seed=seed), Crosses("test", 128, seed=seed)
    network = train(accelerator, data, epochs)
    accelerator.print(f"AUC: train {auc(network, data):.3f}, test {auc(network, test):.3f}")
    accelerator.end_training()


if __name__ == "__main__":
    typer.run(main)
