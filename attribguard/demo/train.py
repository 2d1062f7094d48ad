"""One training of the demo: the paper's small network, plain or guarded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from attribguard.demo.splits import Split
from attribguard.models import actdiff_cnn
from attribguard.penalties import Penalty
from attribguard.wrapping import wrap

__all__ = ["Settings", "reproducible", "train"]


@dataclass(frozen=True)
class Settings:
    """Everything that the demo's figures depend on, beside the seed and the data.

    Both trainings share it, and the first weights and the order of the images too; the penalty is the only difference.
    The paper (Section 4) trains the network at full width for 500 epochs with a constant, smaller learning rate.

    Attributes:
        train_images: number of training images, 500 in the paper.
        valid_images: of validation images, 128 in the paper; the files' own number where files are read.
        test_images: of test images, likewise.
        channels: of the network's first block; half of the paper's.
        norm: the network's normalisation; without BatchNorm ActDiff collapses it.
        epochs: of both trainings; the last one counts.
        batch_size: images a step, as in the paper.
        learning_rate: of Adam.
        cooldown: share of the steps, the last ones, over which the learning rate falls linearly to 0. With a constant
            rate BatchNorm's running statistics lag behind the weights: the AUC hardly notices, but with one seed of
            five the guarded network got 16 % of the test images wrong, and none with statistics computed anew.
        weight: of ActDiff, as in the paper.
        dilate: pixels by which masks grow, as in the paper (its sigma of 0.5).
    """

    train_images: int = 500
    valid_images: int = 128
    test_images: int = 128
    channels: int = 8
    norm: Literal["none", "batch"] = "batch"
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float = 3e-3
    cooldown: float = 0.3
    weight: float = 10.0
    dilate: int = 2


@contextlib.contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Draw from a seed and compute on one thread; both are afterwards as they were.

    With one thread the sums have one order on any number of cores. It is also the faster choice here: maps of 28 x 28
    pixels are too little work to share, and where another program takes a core the threads wait for each other.

    Args:
        seed: 0 or more, below 2 to the 63.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):  # the demo runs on the CPU, so no other device's state is touched
        torch.default_generator.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def train(
    split: Split,
    penalties: Sequence[Penalty],
    settings: Settings,
    *,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> nn.Module:
    """Train the network from scratch. Weights, order and corruptions are drawn from the global random state.

    Args:
        split: the training images.
        penalties: what is added to the loss; none is the plain training.
        settings: network, optimizer and length.
        on_step: called after each step with the numbers of steps done and to do.

    Returns:
        The network of the last epoch, unwrapped, in eval mode.
    """
    model = actdiff_cnn(img_size=split.images.shape[-1], channels=settings.channels, norm=settings.norm)
    guard = wrap(model, penalties=penalties, example_input=split.images[:1])
    # All orders before the first step: corruptions draw too and would shift later ones, and the trainings would differ
    # in more than the penalty.
    batches = [
        batch for _ in range(settings.epochs) for batch in torch.randperm(len(split.targets)).split(settings.batch_size)
    ]
    optimizer = torch.optim.Adam(guard.parameters(), settings.learning_rate)
    total, last = len(batches), max(1.0, settings.cooldown * len(batches))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: min(1.0, (total - done) / last))
    guard.train()
    for done, batch in enumerate(batches, start=1):
        optimizer.zero_grad()
        guard(split.images[batch], split.targets[batch], mask=split.masks[batch]).loss.backward()
        optimizer.step()
        schedule.step()
        on_step(done, total)
    return guard.unwrap().eval()
