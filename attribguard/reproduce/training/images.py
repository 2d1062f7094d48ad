"""A whole split in memory, and what is measured on one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from attribguard.functional.ranks import as_ranks

__all__ = ["Batches", "Images", "accuracy", "auc", "auc_of", "logits_of", "slices"]

_AT_ONCE = 250  # images; the maps of a whole test set would take gigabytes


class Batches(Protocol):
    """What gives a batch for a tensor of indices: a dict with ``image``, ``target``, ``mask`` and so on."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Mapping[str, Tensor]: ...


class Images:
    """Tensors with one entry an image, indexed together.

    Args:
        tensors: (N, ...) each, by the keys that items have.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: Any) -> dict[str, Tensor]:
        """A batch for a slice or a tensor of indices."""
        return {key: tensor[index] for key, tensor in self.tensors.items()}


def slices(data: Batches, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """The images in their order, some at a time.

    Args:
        data: the images.
        device: where to put them.
    """
    for start in range(0, len(data), _AT_ONCE):
        part = data[torch.arange(start, min(start + _AT_ONCE, len(data)))]
        yield {key: tensor.to(device) for key, tensor in part.items()}


@torch.no_grad()
def logits_of(network: nn.Module, data: Batches, device: torch.device) -> tuple[Tensor, Tensor]:
    """Logits (N, K) and targets of all images, on the CPU.

    Args:
        network: in eval mode.
        data: the images.
        device: where the network is.
    """
    parts = [(network(part["image"]).cpu(), part["target"].cpu()) for part in slices(data, device)]
    return torch.cat([logits for logits, _ in parts]), torch.cat([target for _, target in parts])


def accuracy(network: nn.Module, data: Batches, device: torch.device) -> float:
    """Share of right answers.

    Args:
        network: in eval mode.
        data: the images.
        device: where the network is.
    """
    logits, targets = logits_of(network, data, device)
    return (logits.argmax(1) == targets).float().mean().item()


def auc(network: nn.Module, data: Batches, device: torch.device) -> float:
    """Area under the ROC curve for class 1 of two; nan if the network gives what is no number.

    Args:
        network: in eval mode.
        data: the images, of both classes.
        device: where the network is.
    """
    return auc_of(*logits_of(network, data, device))


def auc_of(logits: Tensor, targets: Tensor) -> float:
    """Area under the ROC curve of logits; nan if one of them is no number.

    Args:
        logits: (N, 2).
        targets: (N,), of both classes.
    """
    margins = logits[:, 1] - logits[:, 0]
    if not bool(margins.isfinite().all()):
        return float("nan")
    return binary_auroc(as_ranks(margins), targets).item()
