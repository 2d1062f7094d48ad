"""The loop that all tables share: whole epochs, of which the last one counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from attribguard.errors import check_choice
from attribguard.guard import Guard
from attribguard.reproduce.training.images import Batches

__all__ = ["fit", "guarded", "rate"]

_SCHEDULES = ("constant", "cooldown", "cosine", "polynomial")
_COOLDOWN, _POWER = 0.3, 0.9

Loss = Callable[[Mapping[str, Tensor]], Tensor]


def guarded(guard: Guard, *annotations: str) -> Loss:
    """The loss of a guard for a batch.

    Args:
        guard: that is trained.
        *annotations: the keys of a batch that it is given beside image and target, where the batch has them.
    """

    def loss(batch: Mapping[str, Tensor]) -> Tensor:
        given = {key: batch[key] for key in annotations if key in batch}
        return guard(batch["image"], batch["target"], **given).loss

    return loss


def rate(schedule: str, share: float) -> float:
    """The factor of the learning rate.

    Args:
        schedule: ``"constant"``; ``"cooldown"``: constant, then falling linearly to 0 over the last 30 % of the steps;
            ``"cosine"``: half a cosine, Li et al.; ``"polynomial"``: (1 - share) to the 0.9, Hirata and Okita, Eq. 6.
        share: of the steps that are done, in [0, 1].

    Raises:
        RangeError: if the schedule is unknown.
    """
    check_choice("schedule", schedule, _SCHEDULES)
    if schedule == "cooldown":
        return float(min(1.0, (1 - share) / _COOLDOWN))
    if schedule == "cosine":
        return (1 + math.cos(math.pi * share)) / 2
    return float((1 - share) ** _POWER) if schedule == "polynomial" else 1.0


def fit(
    module: nn.Module,
    loss: Loss,
    data: Batches,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
    n: int | None = None,
    schedule: str = "constant",
    optimizer: Literal["adam", "sgd"] = "adam",
    weight_decay: float = 0.0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    after_epoch: Callable[[], object] = lambda: None,
) -> None:
    """Train a module in place; it is left in eval mode.

    Weights are as they come; order and corruptions are drawn from the global random state. All orders are drawn before
    the first step, so that two methods see the images in the same order whatever they draw themselves.

    Args:
        module: whose parameters are trained, on the device.
        loss: of a batch on the device.
        data: batches for tensors of indices.
        epochs: how many.
        batch_size: images a step; a last batch of a single image is left out, which BatchNorm could not take.
        lr: the learning rate.
        device: where the module is.
        n: train on the first so many images; all by default.
        schedule: of the learning rate, see :func:`rate`.
        optimizer: ``"adam"``, or ``"sgd"`` with a momentum of 0.9.
        weight_decay: of either.
        on_step: called after each step with the numbers of steps done and to do.
        after_epoch: called after each epoch, with the module in eval mode.

    Raises:
        RangeError: if the schedule or the optimizer is unknown.
    """
    check_choice("optimizer", optimizer, ("adam", "sgd"))
    n = len(data) if n is None else n
    orders = [torch.randperm(n).split(batch_size) for _ in range(epochs)]
    steps = [[batch for batch in order if len(batch) > 1] for order in orders]
    total, done = sum(map(len, steps)), 0
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    rule: torch.optim.Optimizer = (
        torch.optim.Adam(trained, lr, weight_decay=weight_decay)
        if optimizer == "adam"
        else torch.optim.SGD(trained, lr, momentum=0.9, weight_decay=weight_decay)
    )
    rates = torch.optim.lr_scheduler.LambdaLR(rule, lambda step: rate(schedule, min(1.0, step / max(1, total))))
    for batches in steps:
        module.train()
        for indices in batches:
            rule.zero_grad()
            loss({key: tensor.to(device) for key, tensor in data[indices].items()}).backward()
            rule.step()
            rates.step()
            done += 1
            on_step(done, total)
        module.eval()
        after_epoch()
