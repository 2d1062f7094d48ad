"""The block of which the ActDiff networks and the U-Net are made."""

from __future__ import annotations

from contextlib import nullcontext
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attribguard.models.checks import Norm
from attribguard.modes import ScratchBuffers

__all__ = ["double_convolution", "run"]


def double_convolution(channels_in: int, channels_out: int, norm: Norm) -> nn.Sequential:
    """Two 3x3 convolutions padded by 1, each followed by BatchNorm, if asked for, and a ReLU.

    The ReLUs do not work in place, so that what enters them can be read after the pass.

    Args:
        channels_in: of the map that comes in.
        channels_out: of the map that goes out.
        norm: ``"none"``, or ``"batch"``; the convolutions then have no bias.
    """
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers.append(nn.Conv2d(channels, channels_out, 3, padding=1, bias=norm == "none"))
        layers += [nn.BatchNorm2d(channels_out)] if norm == "batch" else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def run(block: nn.Module, x: Tensor, checkpointing: bool) -> Tensor:
    """Run a block.

    Args:
        block: from one tensor to one.
        x: what enters it.
        checkpointing: whether to keep nothing of what is inside; the backward pass computes it again.

    Returns:
        What the block gives.
    """
    if not checkpointing:
        out: Tensor = block(x)
        return out
    # A compiled graph moves running statistics once in any case, and cannot follow contexts.
    contexts: Any = {} if torch.compiler.is_compiling() else {"context_fn": lambda: (nullcontext(), _Again(block))}
    again: Tensor = checkpoint(block, x, use_reentrant=False, **contexts)
    return again


class _Again:
    """Lends a block other buffers while it is computed again, so that its running statistics move only once.

    The copies are made when it is entered: in the first computation the buffers may be on loan themselves.
    """

    def __init__(self, block: nn.Module) -> None:
        self._block = block

    def __enter__(self) -> None:
        self._buffers = ScratchBuffers(self._block)
        self._buffers.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._buffers.__exit__(kind, error, trace)
