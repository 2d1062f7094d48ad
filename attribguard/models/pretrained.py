"""Take over a pretraining from a network that has more layers."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from attribguard.errors import ModelError

__all__ = ["copy_pretrained"]


def copy_pretrained(
    source: nn.Module, target: nn.Module, *, unused: Callable[[str], bool], fresh: Callable[[str], bool]
) -> None:
    """Copy parameters and buffers by name, and check that what is left over is what was expected, before any is copied.

    Args:
        source: the pretrained network.
        target: the network that takes its weights.
        unused: which of the source's names have no place in the target.
        fresh: which of the target's names the source does not have.

    Raises:
        ModelError: if other names are left over on either side, or a shape differs.
    """
    theirs, ours = source.state_dict(), target.state_dict()
    wrong = [key for key in theirs if unused(key) == (key in ours)]
    wrong += [key for key in ours if fresh(key) == (key in theirs)]
    wrong += [key for key in ours if key in theirs and ours[key].shape != theirs[key].shape]
    if wrong:
        raise ModelError(
            got=f"a pretraining that does not fit at {sorted(set(wrong))[:8]}",
            needed="the layers and sizes of the pretrained network, or fewer blocks",
            fix="leave the sizes at their defaults, or pretrained=False",
        )
    target.load_state_dict({key: theirs[key] for key in ours if key in theirs}, strict=False)
