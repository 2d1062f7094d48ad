"""Watch one forward pass to learn which modules run, where the activations are, in which layout features come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attribguard.capture import point_name
from attribguard.modes import undisturbed

__all__ = ["Survey", "survey"]

# Gates (sigmoid, hardsigmoid, softmax, GLU) weigh other features instead of being features, and are left out.
_ACTIVATION_NAMES = (
    "relu relu6 leaky_relu prelu rrelu elu celu selu gelu silu mish softplus softsign hardswish hardtanh tanh"
).split()
_ACTIVATIONS = {
    getattr(owner, name + suffix)
    for name in _ACTIVATION_NAMES
    for suffix in ("", "_")
    for owner in (torch, F, Tensor)
    if hasattr(owner, name + suffix)
}
_CHANNELS_FIRST = ("conv", "batch_norm", "instance_norm", "group_norm", "pool", "interpolate", "pixel_")
_RESHAPES = {"reshape", "view", "flatten", "unflatten", "reshape_as", "view_as", "squeeze", "unsqueeze"}


@dataclass(frozen=True)
class Survey:
    """What one forward pass showed.

    Attributes:
        points: every place that a tensor passed, by name, in the order of the pass.
        activations: the places where the tensors that enter activations can be had; never the model's output.
        unplaced: activations whose input no module gives, in words.
        axes: place to channel axis, where the operators told.
        logits: the shape of the logits of one image.
    """

    points: dict[str, None]
    activations: dict[str, None]
    unplaced: tuple[str, ...]
    axes: dict[str, int]
    logits: torch.Size


@dataclass
class _Frame:
    name: str
    call: int
    entered: Tensor | None
    version: int


@dataclass
class _Activation:
    point: str | None
    words: str
    before: Tensor
    after: Tensor


@dataclass
class _Watch(TorchFunctionMode):
    """Sees every function call (as a function mode) and every module call (as hooks)."""

    axis: dict[int, int] = field(default_factory=dict)  # id of a tensor -> its channel axis
    points: dict[str, Tensor] = field(default_factory=dict)
    activations: list[_Activation] = field(default_factory=list)
    _alive: list[Tensor] = field(default_factory=list)  # ids are only good while the tensors live
    _made: dict[int, tuple[str, int]] = field(default_factory=dict)  # id -> where it came out, and its version then
    _stack: list[_Frame] = field(default_factory=list)
    _calls: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def enter_module(self, name: str, args: tuple[Any, ...]) -> None:
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        entered = args[0] if args and isinstance(args[0], Tensor) else None
        self._stack.append(_Frame(name, call, entered, -1 if entered is None else entered._version))
        if entered is not None:
            self.points[point_name(name, call, "input")] = entered

    def leave_module(self, output: Any) -> None:
        frame = self._stack.pop()
        if isinstance(output, Tensor):
            point = point_name(frame.name, frame.call, "output")
            self.points[point] = output
            self._alive.append(output)
            # The innermost module to give a tensor is its maker; containers only pass it on.
            if self._made.get(id(output), ("", -1))[1] != output._version:
                self._made[id(output)] = point, output._version

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        active = func in _ACTIVATIONS and bool(args) and isinstance(args[0], Tensor)
        point = self._place(args[0]) if active else None
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple) and out else out
        if isinstance(first, Tensor):
            self._alive.append(first)
            axis = _channel_axis(func.__name__, args, kwargs or {}, first, self.axis)
            if axis is not None:
                self.axis[id(first)] = axis
            else:
                self.axis.pop(id(first), None)
            if active:
                words = f"{func.__name__} in {self._stack[-1].name or 'the model itself'!r}"
                self.activations.append(_Activation(point, words, args[0], first))
        return out

    def _place(self, x: Tensor) -> str | None:
        frame = self._stack[-1]
        if x is frame.entered and x._version == frame.version:
            return point_name(frame.name, frame.call, "input")
        point, version = self._made.get(id(x), ("", -1))
        return point if version == x._version else None


def _channel_axis(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor, known: dict[int, int]
) -> int | None:
    """Where the channels of a function's result are, from what the function is and where its argument's are."""
    if out.dim() < 3:
        return None
    if any(word in name for word in _CHANNELS_FIRST):
        return 1
    normalized = (args[1] if len(args) > 1 else kwargs["normalized_shape"]) if name == "layer_norm" else ()
    if name == "linear" or len(normalized) == 1:
        return out.dim() - 1
    flat = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else (arg,)) if isinstance(a, Tensor)]
    source = next((a for a in flat if id(a) in known), None)
    if source is None:
        return None
    axis, dims = known[id(source)], source.dim()
    if name == "permute":
        order = args[1] if isinstance(args[1], list | tuple) else args[1:]
        return [d % dims for d in order].index(axis)
    if name in ("transpose", "swapaxes", "swapdims"):
        swap = [d % dims for d in args[1:3]]
        return swap[1 - swap.index(axis)] if axis in swap else axis
    if out.dim() == dims and name not in _RESHAPES:
        return axis
    if axis == dims - 1 and out.shape[-1] == source.shape[-1]:
        return out.dim() - 1
    return axis if axis == 1 and out.shape[1] == source.shape[1] else None


@contextmanager
def _watched(model: nn.Module, watch: _Watch) -> Iterator[None]:
    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda m, args, n=name: watch.enter_module(n, args)))
            handles.append(module.register_forward_hook(lambda m, args, out: watch.leave_module(out)))
        with watch:
            yield
    finally:
        for handle in handles:
            handle.remove()


def survey(model: nn.Module, x: Tensor, select: Callable[[Any], Tensor]) -> Survey:
    """Run the model once, in eval mode and without gradients, and report what ran.

    Buffers, train/eval flags and the random state are afterwards what they were.

    Args:
        model: the network.
        x: (N, C, H, W), on the model's device.
        select: picks the logits from the model's output, or raises.

    Returns:
        What was seen.
    """
    watch = _Watch()
    watch.axis[id(x)] = 1
    with undisturbed(model, x.device):
        with _watched(model, watch):
            output = model(x)
        logits = select(output)
    inner = [a for a in watch.activations if not (_same(a.before, logits) or _same(a.after, logits))]
    return Survey(
        points=dict.fromkeys(watch.points),
        activations=dict.fromkeys(a.point for a in inner if a.point is not None),
        unplaced=tuple(dict.fromkeys(a.words for a in inner if a.point is None)),
        axes={name: watch.axis[id(x)] for name, x in watch.points.items() if id(x) in watch.axis},
        logits=logits.shape[1:],
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.numel() == b.numel()
