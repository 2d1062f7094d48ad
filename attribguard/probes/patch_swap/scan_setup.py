"""What every scan needs around it: the model's device, and a bar on a terminal."""

from __future__ import annotations

import itertools

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

__all__ = ["device_of", "progress_bar"]


def device_of(model: nn.Module, images: Tensor) -> torch.device:
    """Where a model runs; a model without parameters and buffers runs where its images are.

    Args:
        model: the network.
        images: what it will be given.
    """
    return next((tensor.device for tensor in itertools.chain(model.parameters(), model.buffers())), images.device)


def progress_bar(shown: bool) -> Progress:
    """A bar on the standard error stream, gone when it ends; none where nobody watches.

    Args:
        shown: whether it is wanted.
    """
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not (shown and console.is_terminal))
