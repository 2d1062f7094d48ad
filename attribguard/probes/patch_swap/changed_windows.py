"""Run what stands before the dropout on the part of an image alone in which a patch was swapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attribguard.errors import ModelError
from attribguard.network import Network
from attribguard.probes.patch_swap.dropout_calls import Dropouts, dropout_arguments

__all__ = ["Box", "ChangedWindows", "Window"]

# Functions of one map whose every value depends on the values around its place alone, and is NaN if one of them is.
_LOCAL = {
    torch.conv2d, F.pad, F.batch_norm, F.max_pool2d, torch.max_pool2d, F.avg_pool2d, torch.sigmoid, torch.tanh, F.relu,
    torch.relu, F.relu6, F.hardtanh, F.leaky_relu, F.elu, F.selu, F.gelu, F.silu, Tensor.dim, Tensor.size,
    Tensor.shape.__get__,  # type: ignore[attr-defined] # a descriptor at run time
}  # fmt: skip
_FLATTEN = {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape}
# Images at a time while it is measured what depends on what.
_AT_A_TIME = 16


class Box(NamedTuple):
    """Rows and columns of an image or map."""

    rows: slice
    columns: slice

    def of(self, maps: Tensor) -> Tensor:
        """(..., H, W) to what is inside, a view."""
        return maps[..., self.rows, self.columns]

    @property
    def size(self) -> int:
        """How many places are inside."""
        return int((self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start))


class Window(NamedTuple):
    """Where the features are that a patch changes.

    Attributes:
        crop: the part of the image that they depend on, as far as it has to reach.
        inner: where they are in the features of the crop.
        outer: where they are in the features of the whole image.
    """

    crop: Box
    inner: Box
    outer: Box


class ChangedWindows:
    """What enters the dropout, where images differ from their source in one patch.

    A network qualifies that does nothing but convolve, pool, normalise with fixed statistics and apply functions value
    by value before the dropout. What depends on what is measured, by images with NaN in one row or column; that crops
    give the features of the whole image is checked on noise for every place.

    Args:
        network: the model, in eval mode.
        dropouts: its dropout.
    """

    def __init__(self, network: Network, dropouts: Dropouts) -> None:
        self._network, self._number = network, dropouts.live[0].number
        self._noise, self._maps = torch.empty(0), torch.empty(0)
        self._reach: tuple[_Reach, _Reach] | None = None
        self._known: dict[tuple[int, int, int, int], Window | None] = {}

    def find(self, source: Tensor, patch: Box) -> Window | None:
        """Where to look for what a patch changes.

        Args:
            source: (1, C, H, W), for its size.
            patch: where the patch is.

        Returns:
            ``None`` where the whole image has to be run, or so much of it that nothing is won.
        """
        key = patch.rows.start, patch.rows.stop, patch.columns.start, patch.columns.stop
        if self._noise.shape != source.shape or self._noise.dtype != source.dtype:
            self._measure(source)
        if key not in self._known:
            window = None if self._reach is None else self._find(patch, *self._reach)
            self._known[key] = window if window is not None and self._holds(window, patch) else None
        return self._known[key]

    def maps(self, images: Tensor) -> Tensor:
        """What enters the dropout.

        Args:
            images: (B, C, H, W), whole or the crop of a window that was found.

        Returns:
            (B, C, h, w).

        Raises:
            ModelError: if the network now does something else than when the window was found.
        """
        if (maps := self._look(images)) is None:
            raise ModelError(
                got="a network that does not do the same each time",
                needed="the functions that the first image led to",
                fix="scan a network whose path does not depend on how often it was called",
            )
        return maps

    def _look(self, images: Tensor) -> Tensor | None:
        """The same, but ``None`` if it is not made of the images place by place."""
        with _UpToDropout(self._number) as watch:
            try:
                self._network.model(images)
            except _Reached as reached:
                entered = reached.entered
            except (RuntimeError, ValueError):  # what refuses images of another size
                return None
            else:
                return None
        if not watch.local:
            return None
        if entered.dim() == 2 and watch.flattened:
            entered = entered.unflatten(1, watch.flattened)
        return entered if entered.dim() == 4 and len(entered) == len(images) else None

    def _measure(self, source: Tensor) -> None:
        self._known.clear()
        self._reach = None
        generator = torch.Generator().manual_seed(0)
        self._noise = torch.randn(source.shape, generator=generator).to(source)
        maps = self._look(self._noise)
        if maps is None:
            return
        self._maps = maps
        rows, columns = (self._touched(axis) for axis in (2, 3))
        if rows is not None and columns is not None:
            self._reach = _Reach(rows, _stride(rows)), _Reach(columns, _stride(columns))

    def _touched(self, axis: int) -> Tensor | None:
        """Which rows of features depend on which rows of the image, or columns: (H, h)."""
        parts = []
        for places in torch.arange(self._noise.shape[axis]).split(_AT_A_TIME):
            images = self._noise.repeat(len(places), 1, 1, 1)
            for image, place in zip(images, places.tolist(), strict=True):
                image.select(axis - 1, place).fill_(float("nan"))
            maps = self._look(images)
            if maps is None:
                return None
            parts.append(maps.isnan().any(1).any(5 - axis - 1).cpu())
        return torch.cat(parts)

    def _find(self, patch: Box, rows: _Reach, columns: _Reach) -> Window | None:
        found = [_along(*each) for each in ((patch.rows, rows), (patch.columns, columns))]
        if found[0] is None or found[1] is None:
            return None
        crop, inner, outer = (Box(*both) for both in zip(*found, strict=True))
        small = 2 * crop.size < self._noise[0, 0].numel() and 2 * outer.size < self._maps[0, 0].numel()
        return Window(crop, inner, outer) if small else None

    def _holds(self, window: Window, patch: Box) -> bool:
        """Whether noise with other noise in the patch has the features that its crop puts into those without."""
        swapped = self._noise.clone()
        patch.of(swapped).copy_(patch.of(self._noise.flip(2, 3).neg()))
        whole, cropped = self._look(swapped), self._look(window.crop.of(swapped))
        if whole is None or cropped is None:
            return False
        composed = self._maps.clone()
        inner, outer = window.inner.of(cropped), window.outer.of(composed)
        if inner.shape != outer.shape:
            return False
        outer.copy_(inner)
        tolerance = 1e-5 if whole.dtype in (torch.float32, torch.float64) else 1e-2
        return bool((composed - whole).abs().max() <= tolerance * whole.abs().max())


class _Reach(NamedTuple):
    """Along one axis (H, h), which pixels touch which features, and how many pixels these are apart."""

    touched: Tensor
    stride: int


def _stride(touched: Tensor) -> int:
    """How far apart the first pixels are on which features depend; at the border, where they coincide, it is less."""
    firsts = touched.int().argmax(0)
    return max(1, int(firsts.diff().max())) if len(firsts) > 1 else len(touched)


def _along(patch: slice, reach: _Reach) -> tuple[slice, slice, slice] | None:
    """One axis of a window: crop, inner and outer."""
    touched, stride = reach
    changed = _hull(touched[patch].any(0))
    if changed is None:
        return None
    needed = _hull(touched[:, changed].any(1))
    assert needed is not None  # what depends on the patch depends on something
    # A crop that begins a multiple of the stride in has its features where the whole image has them.
    skipped = needed.start // stride
    inner = slice(changed.start - skipped, changed.stop - skipped)
    return slice(skipped * stride, needed.stop), inner, changed


def _hull(flags: Tensor) -> slice | None:
    """From the first to the last that is set."""
    places = flags.nonzero()[:, 0].tolist()
    return slice(places[0], places[-1] + 1) if places else None


class _Reached(BaseException):
    """Ends a pass; networks that catch errors of their own do not catch it."""

    def __init__(self, entered: Tensor) -> None:
        super().__init__()
        self.entered = entered


class _UpToDropout(TorchFunctionMode):
    """Ends a pass at a dropout call, and notes whether what came before is local."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left, self.local = number, True
        self.flattened: tuple[int, ...] = ()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (arguments := dropout_arguments(func, args, kwargs or {})) is not None:
            if not self._left:
                raise _Reached(arguments.x)
            self._left -= 1
            return arguments.x
        result = func(*args, **(kwargs or {}))
        if func in _FLATTEN and args and args[0].dim() == 4 and result.shape == (len(args[0]), args[0][0].numel()):
            self.flattened = tuple(args[0].shape[1:])
        elif func not in _LOCAL:
            self.local = False
        return result
