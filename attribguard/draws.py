"""Let a second forward pass draw what the first one drew, so that dropout is no difference between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attribguard.compiling import refusal
from attribguard.modes import RandomState

__all__ = ["Draws", "EagerDraws", "TracedDraws"]


class EagerDraws:
    """Goes back to the random state before the first pass: whatever draws, fused kernels included, draws alike.

    Args:
        device: where the model runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = RandomState(device)
        self.any = True

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """The first pass runs in here. Afterwards ``any`` says whether it drew anything."""
        yield
        self.any = not self._start.unchanged()

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """A later pass runs in here; the random state is afterwards what it was before."""
        if not self.any:
            yield
            return
        now = RandomState(self._device)
        self._start.restore()
        try:
            yield
        finally:
            now.restore()


_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, torch.dropout)
_DRAWS = (
    torch.bernoulli, torch.rand, torch.rand_like, torch.randn, torch.randn_like, torch.randint, torch.randperm,
    torch.randint_like, torch.normal, torch.multinomial, torch.poisson, Tensor.multinomial, Tensor.bernoulli,
    Tensor.bernoulli_, Tensor.uniform_, Tensor.normal_, Tensor.exponential_, Tensor.log_normal_, Tensor.cauchy_,
    Tensor.geometric_,
)  # fmt: skip
# Functions that draw inside, where no mode sees it: the arguments that switch it on, their positions and defaults.
_FUSED: dict[Callable[..., Any], dict[str, tuple[int, float | bool]]] = {
    F.scaled_dot_product_attention: {"dropout_p": (4, 0.0)},
    F.multi_head_attention_forward: {"dropout_p": (10, 0.0), "training": (13, True)},
    F.alpha_dropout: {"p": (1, 0.5), "training": (2, False)},
    F.feature_alpha_dropout: {"p": (1, 0.5), "training": (2, False)},
    torch.alpha_dropout: {"p": (1, 0.5), "train": (2, False)},
    torch.feature_dropout: {"p": (1, 0.5), "train": (2, False)},
    torch.native_dropout: {"p": (1, 0.5), "train": (2, False)},
    F.rrelu: {"training": (3, False)},
    torch.rrelu: {"training": (3, False)},
    F.gumbel_softmax: {},
}
_REFUSALS = {
    func: refusal(
        got=f"{func.__name__} with random draws in a compiled guard",
        needed="draws that can be repeated in a second pass",
        fix="switch its dropout off, or leave the guard uncompiled",
    )
    for func in _FUSED
}


class TracedDraws:
    """Keeps the draws themselves, for compiled graphs, which going back to a random state would break."""

    def __init__(self) -> None:
        """Start without draws."""
        self._tape: list[Tensor] = []
        self.any = True

    def recorded(self) -> AbstractContextManager[object]:
        """The first pass runs in here."""
        return _Tape(self._tape, replay=False)

    def replayed(self) -> AbstractContextManager[object]:
        """A later pass of the same functions runs in here."""
        return _Tape(self._tape, replay=True)


Draws = EagerDraws | TracedDraws


class _Tape(TorchFunctionMode):
    def __init__(self, tape: list[Tensor], replay: bool) -> None:
        super().__init__()
        self._tape, self._replay, self._next = tape, replay, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            x, p, training, inplace = _dropout_arguments(*args, **kwargs)
            if training and p > 0:
                # Dropout multiplies by a mask, so that dropout of ones is the mask.
                mask = self._draw(lambda: func(torch.ones_like(x), p, True))
                return x.mul_(mask) if inplace else x * mask
        if func in _DRAWS:
            drawn = self._draw(lambda: func(*args, **kwargs))
            # A copy, for the caller may change it in place.
            return args[0].copy_(drawn) if func.__name__.endswith("_") else drawn.clone()
        if func in _FUSED and all(
            args[place] if len(args) > place else kwargs.get(name, default)
            for name, (place, default) in _FUSED[func].items()
        ):
            _REFUSALS[func]()
        return func(*args, **kwargs)

    def _draw(self, draw: Callable[[], Tensor]) -> Tensor:
        if not self._replay:
            self._tape.append(draw().clone())
            return self._tape[-1]
        self._next += 1
        return self._tape[self._next - 1]


def _dropout_arguments(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, **other: Any
) -> tuple[Tensor, float, bool, bool]:
    return input, p, other.get("train", training), inplace
