"""Watch one forward pass to learn which modules run, where the activations are, in which layout features come."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attribguard.capture import point_name
from attribguard.errors import ModelError
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
        activations: the places where the tensors that enter activations can be had, as far as these hold an entry for
            each image; never the model's output.
        unplaced: activations whose input no module gives, or gives with the images mixed along the first axis, in
            words.
        axes: place to channel axis, where the operators told.
        shapes: place to the shape of its tensor, for a batch of two images.
        classifier: the module whose output the logits are, if there is one.
        logits: the shape of the logits of one image.
    """

    points: dict[str, None]
    activations: dict[str, None]
    unplaced: tuple[str, ...]
    axes: dict[str, int]
    shapes: dict[str, torch.Size]
    classifier: str | None
    logits: torch.Size


@dataclass
class _Frame:
    name: str
    call: int
    leaf: bool
    entered: Tensor | None
    version: int


@dataclass
class _Activation:
    point: str | None
    halves: Literal["equal", "constant", "other"]
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

    def enter_module(self, name: str, leaf: bool, args: tuple[Any, ...]) -> None:
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        entered = args[0] if args and isinstance(args[0], Tensor) else None
        self._stack.append(_Frame(name, call, leaf, entered, -1 if entered is None else entered._version))
        if entered is not None:
            self.points[point_name(name, call, "input")] = entered

    def leave_module(self, output: Any) -> None:
        frame = self._stack.pop()
        if isinstance(output, Tensor):
            point = point_name(frame.name, frame.call, "output")
            self.points[point] = output
            self._alive.append(output)
            # The innermost module to give a tensor is its maker. Containers only pass it on; a leaf may be dropout,
            # which passes it on in eval mode alone.
            if frame.leaf or self._made.get(id(output), ("", -1))[1] != output._version:
                self._made[id(output)] = point, output._version

    def maker(self, x: Tensor) -> str | None:
        """The module that gave this tensor in its first call, if one did."""
        point, version = self._made.get(id(x), ("", -1))
        return point if point and "#" not in point and version == x._version else None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        entering: Any = args[0] if args else (kwargs or {}).get("input")
        active = func in _ACTIVATIONS and isinstance(entering, Tensor)
        before = (self._place(entering), _halves(entering)) if active else None
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple) and out else out
        if isinstance(first, Tensor):
            self._alive.append(first)
            axis = _channel_axis(func.__name__, args, kwargs or {}, first, self.axis)
            if axis is not None:
                self.axis[id(first)] = axis
            else:
                self.axis.pop(id(first), None)
            if before is not None:
                words = f"{func.__name__} in {self._stack[-1].name or 'the model itself'!r}"
                self.activations.append(_Activation(*before, words, entering, first))
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
    if name in ("matmul", "__matmul__", "bmm"):
        # Channels come with the second factor, such as an attention's values; its weights, query by key, have none. A
        # factor of which nothing is known is a parameter.
        factor = next((x for x in (args[1], args[0]) if id(x) in known), None)
        return out.dim() - 1 if factor is not None and known[id(factor)] == factor.dim() - 1 else None
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
            leaf = next(module.children(), None) is None
            enter = functools.partial(watch.enter_module, name, leaf)
            handles.append(module.register_forward_pre_hook(lambda m, args, enter=enter: enter(args)))
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
        x: (N, C, H, W), on the model's device; the first image is looked at.
        select: picks the logits from the model's output, or raises.

    Returns:
        What was seen.

    Raises:
        ModelError: if the model writes into its images.
    """
    watch = _Watch()
    with undisturbed(model, x.device):
        # Twice the same image: what does not come in two equal halves has no entry for each image.
        pair = x[:1].detach().clone().repeat(2, 1, 1, 1)
        written, watch.axis[id(pair)] = pair._version, 1
        with _watched(model, watch):
            output = model(pair)
        logits = select(output)
    if pair._version != written:
        raise ModelError(
            got="a model that writes into the images it is given",
            needed="images that stay as they are, for a second pass over them",
            fix="let it work on a copy, or normalise the images before the call",
        )
    inner = [a for a in watch.activations if not (_same(a.before, logits) or _same(a.after, logits))]
    return Survey(
        points=dict.fromkeys(watch.points),
        activations=dict.fromkeys(a.point for a in inner if a.point is not None and a.halves == "equal"),
        unplaced=tuple(dict.fromkeys(a.words for a in inner if a.point is None or a.halves == "other")),
        axes={name: watch.axis[id(x)] for name, x in watch.points.items() if id(x) in watch.axis},
        shapes={name: x.shape for name, x in watch.points.items()},
        classifier=watch.maker(logits),
        logits=logits.shape[1:],
    )


def _halves(x: Tensor) -> Literal["equal", "constant", "other"]:
    """Of a tensor for twice the same image: whether it holds an entry for each, nothing of the images, or a mixture."""
    n = len(x) if x.dim() else 1
    if n % 2:
        return "constant"
    # Two rows are one for each, even where the images see each other; more may be windows, in either order.
    return "equal" if n == 2 or torch.allclose(x[: n // 2], x[n // 2 :], rtol=1e-3, atol=1e-5) else "other"


def _same(a: Tensor, b: Tensor) -> bool:
    return a.data_ptr() == b.data_ptr() and a.numel() == b.numel()
