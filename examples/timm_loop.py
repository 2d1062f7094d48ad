"""A guard among timm's conventions: its networks, optimizers, schedules, weight averages, mixed precision, clipping.

    python -m examples.timm_loop --network attribguard_actdiff_cnn --epochs 10

trains on crosses (see `plain_loop.py`) in bfloat16 on a CPU, which takes half a minute, and in float16 with scaled
gradients where there is CUDA. It prints the AUC of the network and of its average. `--network` is any name that timm
knows, of its own or of `attribguard.models`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import timm
import torch
import typer
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import nn
from torch.utils.data import DataLoader

import attribguard.models  # noqa: F401  # so that timm knows its networks
from attribguard import ActDiff, GuardOutput, wrap
from attribguard.data import Crosses
from examples.plain_loop import auc

OPTIONS = {"attribguard_actdiff_cnn": {"channels": 8, "norm": "batch"}}  # what a name alone does not say


def train(
    network: nn.Module,
    data: Crosses,
    epochs: int,
    *,
    rate: float = 3e-3,
    weight: float = 10.0,
    clip: float = 5.0,
    on_step: Callable[[GuardOutput], None] = lambda out: None,
) -> ModelEmaV3:
    """Train in place, on the device on which the network is; gives the average of its weights over the steps."""
    device = next(network.parameters()).device
    # The average copies the network while there is nothing on it yet; wrapping changes neither its weights nor names.
    average = ModelEmaV3(network, use_warmup=True)
    guard = wrap(network, penalties=[ActDiff(weight)], example_input=data[0][0].shape)
    # From the network and not the guard: timm asks it which parameters are to have no weight decay. Heads would be a
    # group of their own: optimizer.add_param_group({"params": list(guard.heads.parameters())}).
    optimizer = create_optimizer_v2(network, opt="adamw", lr=rate, weight_decay=0.05)
    loader = DataLoader(data, batch_size=32, shuffle=True, drop_last=True)
    steps = epochs * len(loader)
    warmup = steps // 10
    schedule = CosineLRScheduler(
        optimizer, t_initial=steps - warmup, warmup_t=warmup, warmup_lr_init=1e-5, warmup_prefix=True, t_in_epochs=False
    )
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=half == torch.float16)
    step = 0
    for _ in range(epochs):
        guard.train()
        for batch in loader:
            x, y, mask = (part.to(device) for part in batch)
            with torch.autocast(device.type, dtype=half):
                out = guard(x, y, mask=mask)
            optimizer.zero_grad()
            scaler.scale(out.loss).backward()
            scaler.unscale_(optimizer)
            dispatch_clip_grad(guard.parameters(), clip, mode="norm")
            scaler.step(optimizer)
            scaler.update()
            step += 1
            average.update(network, step=step)
            schedule.step_update(step)
            on_step(out)
    guard.unwrap()
    return average


def main(
    name: Annotated[str, typer.Option("--network", help="A name that timm knows.")] = "attribguard_actdiff_cnn",
    seed: Annotated[int, typer.Option(min=0, help="Of images, weights and order.")] = 0,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    images: Annotated[int, typer.Option(min=32, help="To train on.")] = 500,
) -> None:
    """Train a network of timm's on crosses with ActDiff, with what timm's own training script has."""
    torch.manual_seed(seed)
    network = timm.create_model(name, in_chans=1, num_classes=2, **OPTIONS.get(name, {}))
    network = network.to("cuda" if torch.cuda.is_available() else "cpu")
    data, test = Crosses("train", images, seed=seed), Crosses("test", 128, seed=seed)
    average = train(network, data, epochs)
    print(f"test AUC: network {auc(network, test):.3f}, average {auc(average.module, test):.3f}")


if __name__ == "__main__":
    typer.run(main)
