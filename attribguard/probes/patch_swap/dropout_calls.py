"""Find the dropout of a network: which of its calls a training pass would draw for, and what their masks look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from attribguard.errors import ModelError
from attribguard.modes import RandomState, undisturbed

__all__ = ["Arguments", "DropoutCall", "Dropouts", "dropout_arguments", "find_dropouts"]

_ALPHA = (F.alpha_dropout, F.feature_alpha_dropout, torch.alpha_dropout, torch.feature_alpha_dropout)
_BY_FEATURE = (
    F.dropout1d, F.dropout2d, F.dropout3d, F.feature_alpha_dropout, torch.feature_dropout, torch.feature_alpha_dropout,
)  # fmt: skip
_DROPOUTS = {F.dropout, torch.dropout, *_ALPHA, *_BY_FEATURE}
# These take a tensor of so many axes for one image without a batch axis.
_UNBATCHED = {F.dropout1d: 2, F.dropout3d: 4}
# Functions that drop attention inside, where no mask can be handed in: the arguments that switch it on, their positions
# and defaults.
_FUSED: dict[Callable[..., Any], dict[str, tuple[int, float | bool]]] = {
    F.scaled_dot_product_attention: {"dropout_p": (4, 0.0)},
    F.multi_head_attention_forward: {"dropout_p": (10, 0.0), "training": (13, True)},
}


class Arguments(NamedTuple):
    """What a dropout function was called with."""

    x: Tensor
    p: float
    training: bool
    inplace: bool


class DropoutCall(NamedTuple):
    """One call of a dropout function in a forward pass.

    Attributes:
        number: which one, from 0, among all calls of a pass.
        p: the share that is dropped.
        alpha: whether it is alpha dropout, which keeps mean and variance of SELU's outputs.
        axis: where in the tensor the images are, several entries an image perhaps; ``None`` for a tensor without
            images, such as weights.
        shape: of the tensor for one image.
        noise: of the mask for one image.
    """

    number: int
    p: float
    alpha: bool
    axis: int | None
    shape: tuple[int, ...]
    noise: tuple[int, ...]


class Dropouts(NamedTuple):
    """The dropout of a network.

    Attributes:
        live: the calls that drop something in training.
        calls: how many calls a pass makes, those included that drop nothing.
    """

    live: tuple[DropoutCall, ...]
    calls: int


class _Seen(NamedTuple):
    owner: nn.Module
    training: bool
    call: DropoutCall


class _Watch(TorchFunctionMode):
    """Notes every call of a dropout function for two equal images, and who makes it; drops nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[_Seen] = []
        self.owners: set[nn.Module] = set()
        self.stack: list[nn.Module] = []

    def path(self) -> list[DropoutCall]:
        """The calls, whatever share they drop."""
        return [seen.call._replace(p=0.0) for seen in self.seen]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (arguments := dropout_arguments(func, args, kwargs or {})) is not None:
            x, p, training, _ = arguments
            axis = _image_axis(x)
            shape = tuple(size // 2 if i == axis else size for i, size in enumerate(x.shape))
            noise = tuple(size if i == axis or i < _drawn_axes(func, shape) else 1 for i, size in enumerate(shape))
            call = DropoutCall(len(self.seen), float(p), func in _ALPHA, axis, shape, noise)
            self.seen.append(_Seen(self.stack[-1], training and p > 0, call))
            self.owners.add(self.stack[-1])
            return x
        if func in _FUSED:
            self.owners.add(self.stack[-1])
            given = (kwargs or {}).get
            if all(args[i] if len(args) > i else given(name, default) for name, (i, default) in _FUSED[func].items()):
                raise ModelError(
                    got=f"a network whose {func.__name__} drops attention inside, where no mask can be handed in",
                    needed="attention without dropout, or with dropout as a function of its own",
                    fix="set that attention's dropout to 0 for the scan, or pass passes=1 for the plain certainty",
                )
        return func(*args, **(kwargs or {}))


def dropout_arguments(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments | None:
    """Read a call of a dropout function; ``None`` for any other function.

    Args:
        func: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    if func not in _DROPOUTS:
        return None
    off = func in (F.alpha_dropout, F.feature_alpha_dropout)

    def read(input: Tensor, p: float = 0.5, training: bool = not off, inplace: bool = False, **more: Any) -> Arguments:
        return Arguments(input, p, more.get("train", training), inplace)

    return read(*args, **kwargs)


def find_dropouts(model: nn.Module, run: Callable[[Tensor], object], x: Tensor, *, training: bool = True) -> Dropouts:
    """Find out which dropout calls would drop something in training, without putting the network in train mode.

    The network runs in eval mode on twice the same image, which shows who calls dropout. Then it runs again with the
    train flag set in just those modules: the calls that the flag switches on, or that are always on, count. A call
    written as ``training=False`` stays off, and neither BatchNorm nor stochastic depth ever sees a train flag.

    Args:
        model: the network.
        run: calls it on images.
        x: (N, C, H, W); the first image is looked at.
        training: whether to look for live calls at all; otherwise there are none, and nothing is dropped.

    Returns:
        The calls of one pass.

    Raises:
        ModelError: if attention is dropped inside one fused function, the network draws random numbers of another kind
            in eval mode, or calls dropout in another order when it is on.
    """
    pair = x[:1].repeat(2, 1, 1, 1)
    with undisturbed(model, x.device):
        before = RandomState(x.device)
        off = _watch(model, run, pair)
        if not before.unchanged():
            raise ModelError(
                got="a network that draws random numbers in eval mode, other than dropout's",
                needed="one whose dropout alone is random, so that equal masks give equal passes",
                fix="switch the other source of randomness off",
            )
        if not training:
            return Dropouts((), len(off.seen))
        for module in model.modules():
            module.training = module in off.owners or isinstance(module, _DropoutNd)
        on = _watch(model, run, pair)
    if on.path() != off.path():
        raise ModelError(
            got="a network that calls dropout elsewhere in training than in evaluation",
            needed="the same path with dropout on and off",
            fix="scan a network whose forward method does not branch on self.training",
        )
    return Dropouts(tuple(seen.call for seen in on.seen if seen.training), len(on.seen))


def _watch(model: nn.Module, run: Callable[[Tensor], object], pair: Tensor) -> _Watch:
    watch = _Watch()
    with _stacked(model, watch.stack), watch:
        run(pair)
    return watch


@contextmanager
def _stacked(model: nn.Module, stack: list[nn.Module]) -> Iterator[None]:
    """Keeps the modules whose forward methods run on a stack."""

    def leave(*_: object) -> None:
        stack.pop()

    handles = []
    try:
        for module in model.modules():
            handles.append(module.register_forward_pre_hook(lambda m, args: stack.append(m)))
            handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _image_axis(x: Tensor) -> int | None:
    """The axis along which a tensor for twice the same image falls into two equal halves."""
    for axis, size in enumerate(x.shape):
        if size and size % 2 == 0:
            one, other = x.chunk(2, axis)
            if torch.allclose(one, other, rtol=1e-3, atol=1e-5):
                return axis
    return None


def _drawn_axes(func: Callable[..., Any], shape: tuple[int, ...]) -> int:
    """Along how many axes, from the first, the entries are dropped apart from each other."""
    if func not in _BY_FEATURE:
        return len(shape)
    return 1 if _UNBATCHED.get(func) == len(shape) else 2
