"""Run a model again without disturbing it: buffers on loan, modes and random state put back, dropout drawn alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["RandomState", "ScratchBuffers", "outside_inference_mode", "undisturbed"]


class ScratchBuffers:
    """Lend the model copies of its buffers, so that a pass leaves running statistics where they were.

    Batch normalisation in train mode then still normalises by its own batch, and so does whatever else keeps a state
    in buffers. The copies start from the values at the time when this object was made: made before the main pass, they
    let further passes begin where that one began. The modules and their parameters are untouched. (A class, because a
    compiled graph can follow it.)

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = [(m, name, buffer) for m in model.modules() for name, buffer in m._buffers.items()]
        self._start = [None if buffer is None else buffer.clone() for _, _, buffer in self._own]

    def __enter__(self) -> None:
        """Swap copies in."""
        for (module, name, _), start in zip(self._own, self._start, strict=True):
            module._buffers[name] = None if start is None else start.clone()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the model its own back."""
        for module, name, buffer in self._own:
            module._buffers[name] = buffer


class RandomState:
    """The random state of the CPU and of one device at one moment.

    Args:
        device: the accelerator, or the CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._cpu = torch.get_rng_state()
        self._accelerator = _accelerator_state(device)

    def restore(self) -> None:
        """Go back to that moment."""
        torch.set_rng_state(self._cpu)
        if self._accelerator is not None:
            torch.get_device_module(self._device).set_rng_state(self._accelerator, self._device)

    def unchanged(self) -> bool:
        """Whether nothing has been drawn since."""
        now = _accelerator_state(self._device)
        same = self._accelerator is None or (now is not None and torch.equal(self._accelerator, now))
        return same and torch.equal(self._cpu, torch.get_rng_state())


def _accelerator_state(device: torch.device) -> Tensor | None:
    return None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)


@contextmanager
def undisturbed(model: nn.Module, device: torch.device, *, evaluating: bool = True) -> Iterator[None]:
    """Look at a model without a trace: no gradients, buffers, modes and random state as before.

    Args:
        model: the network.
        device: where it runs.
        evaluating: whether to switch every module to eval mode meanwhile.
    """
    flags = [(module, module.training) for module in model.modules()]
    state, caching = RandomState(device), torch.is_autocast_cache_enabled()
    try:
        # Before torch 2.7 a weight that is cast here, without a graph, would be taken for the pass that needs one.
        torch.set_autocast_cache_enabled(False)
        # Inference tensors have no version counters, and could not be used in training afterwards.
        with torch.inference_mode(False), torch.no_grad(), ScratchBuffers(model):
            if evaluating:
                # Flags are set one by one: a `train` method of the user's may do more than that.
                for module, _ in flags:
                    module.training = False
            yield
    finally:
        for module, flag in flags:
            module.training = flag
        torch.set_autocast_cache_enabled(caching)
        state.restore()


def outside_inference_mode(x: Any) -> Any:
    """What can be used in training: a copy of an inference tensor, and everything else as it is."""
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x
