"""Run a network with dropout masks that are handed in, so that many images see the same ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attribguard.errors import ModelError
from attribguard.probes.patch_swap.dropout_calls import DropoutCall, Dropouts, dropout_arguments

__all__ = ["Masked", "Masks", "factors"]

# What alpha dropout puts in the place of what it drops: minus SELU's scale times its alpha.
_SELU_FLOOR = -1.0507009873554805 * 1.6732632423543772


class Masks:
    """The dropout masks of all passes. Drawn on the CPU, so that they are the same for every device.

    Args:
        dropouts: what drops.
        passes: T.
        seed: of the T streams, one a pass. Fewer passes see the first of the same masks.
        independent: whether every image draws masks of its own, batch after batch; otherwise pass t has one mask for
            all of them.
        device: where they are needed.
    """

    def __init__(self, dropouts: Dropouts, passes: int, seed: int, independent: bool, device: torch.device) -> None:
        self._dropouts, self._device, self.independent = dropouts, device, independent
        seeds = torch.randint(2**63 - 1, (passes,), generator=torch.Generator().manual_seed(seed)).tolist()
        streams = (torch.Generator().manual_seed(each) for each in seeds)
        self._streams = list(streams) if independent else []
        self._common = [] if independent else self._draw(1, passes, streams)

    def keep(self, images: int) -> list[Tensor]:
        """For each live call what is kept.

        Args:
            images: how many are in the batch.

        Returns:
            (T, *noise) bool each, the axis of the images having one image's entries, or all images' where every image
            has its own.
        """
        return self._draw(images, len(self._streams), self._streams) if self.independent else self._common

    def _draw(self, images: int, passes: int, streams: Iterable[torch.Generator]) -> list[Tensor]:
        shapes = [_for_images(call.noise, call, images) for call in self._dropouts.live]
        keeps = [torch.empty(passes, *shape, dtype=torch.bool) for shape in shapes]
        for t, stream in enumerate(streams):
            for keep, call in zip(keeps, self._dropouts.live, strict=True):
                keep[t] = torch.rand(keep[t].shape, generator=stream) >= call.p
        return [keep.to(self._device) for keep in keeps]


class Masked(TorchFunctionMode):
    """A pass in here multiplies by these masks where the network calls dropout; a context manager.

    Args:
        dropouts: the network's.
        images: how many are in the batch.
        keeps: a mask for each live call, as :meth:`Masks.keep` gives them, of one pass; ``None`` for a pass in which
            nothing is dropped.

    Attributes:
        entered: what entered the last live call.
    """

    def __init__(self, dropouts: Dropouts, images: int, keeps: Sequence[Tensor] | None) -> None:
        super().__init__()
        self._dropouts, self._images, self._next = dropouts, images, 0
        self._live = {call.number: (i, call) for i, call in enumerate(dropouts.live)}
        self._keeps = keeps
        self.entered = torch.empty(0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (arguments := dropout_arguments(func, args, kwargs or {})) is None:
            return func(*args, **(kwargs or {}))
        x, _, _, inplace = arguments
        self._next += 1
        if self._next - 1 not in self._live:
            return x
        i, call = self._live[self._next - 1]
        if tuple(x.shape) != _for_images(call.shape, call, self._images):
            raise _other_path(f"dropout {call.number} on a tensor of shape {tuple(x.shape)}")
        self.entered = x
        if self._keeps is None:
            return x
        scale, shift = factors(call, self._over_images(self._keeps[i], call), x.dtype)
        dropped = x * scale + shift if call.alpha else x * scale
        return x.copy_(dropped) if inplace else dropped

    def _over_images(self, keep: Tensor, call: DropoutCall) -> Tensor:
        axis = call.axis
        if axis is None or keep.shape[axis] in (1, call.shape[axis] * self._images):
            return keep
        return keep.repeat([self._images if i == axis else 1 for i in range(keep.dim())])

    def check(self) -> None:
        """After the pass.

        Raises:
            ModelError: if the network called dropout more or less often than it did for the images first looked at.
        """
        if self._next != self._dropouts.calls:
            raise _other_path(f"{self._next} calls of dropout in a pass")


def factors(call: DropoutCall, keep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Write dropout as ``x * scale + shift``.

    Args:
        call: what it is.
        keep: any shape, bool.
        dtype: of the result.

    Returns:
        Scale and shift, of the same shape; the shift is 0 but for alpha dropout (Klambauer et al. 2017, Section 3).
    """
    if call.p >= 1:
        return torch.zeros_like(keep, dtype=dtype), torch.zeros_like(keep, dtype=dtype)
    if not call.alpha:
        return keep.to(dtype) / (1 - call.p), torch.zeros_like(keep, dtype=dtype)
    scale = 1 / math.sqrt((1 - call.p) * (1 + call.p * _SELU_FLOOR**2))
    return keep.to(dtype) * scale, ((~keep).to(dtype) - call.p) * (scale * _SELU_FLOOR)


def _for_images(shape: tuple[int, ...], call: DropoutCall, images: int) -> tuple[int, ...]:
    return tuple(size * images if i == call.axis else size for i, size in enumerate(shape))


def _other_path(got: str) -> ModelError:
    return ModelError(
        got=got,
        needed="the calls that the first image led to, with one part for each image",
        fix="scan a network whose path does not depend on the values or the number of its images",
    )
