"""Take tensors out of a forward pass: hooks that are installed once and do nothing until a pass is recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from attribguard.errors import LayerError

__all__ = ["Capture", "Keep", "is_hooked", "point_name"]

Side = Literal["input", "output"]
Keep = Callable[[str, Tensor], None]


def point_name(module: str, call: int, side: Side) -> str:
    """Name a place in a forward pass: ``layer1.0.relu#1:input`` is what enters that module at its second call.

    Args:
        module: as in ``named_modules``; empty for the model itself.
        call: which of its calls in one pass, from 0.
        side: what enters it or what it gives out.
    """
    return f"{module}{f'#{call}' if call else ''}{':input' if side == 'input' else ''}"


def _hooked_place(point: str) -> tuple[str, Side]:
    path, _, side = point.partition(":")
    return path.partition("#")[0], "input" if side else "output"


class _Enough(BaseException):
    """Ends a forward pass of which nothing more is wanted; not an ``Exception``, so that no model catches it."""


class _Hook:
    """One end of one module. A class, not a closure, so that a guard can be copied and pickled."""

    def __init__(self, capture: Capture, module: str, side: Side) -> None:
        self.capture, self.module, self.side = capture, module, side

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any = None) -> None:
        if self.capture.recording is not None:
            self.capture.recording.see(self.module, self.side, args[0] if self.side == "input" else output)


class _Recording:
    """The tensors of one pass. A context manager; leaving it closes the gate, whatever happened."""

    def __init__(
        self,
        capture: Capture,
        points: Collection[str],
        on_path: Collection[str],
        stop_when_complete: bool,
        keep: Keep | None,
    ) -> None:
        self.capture, self.points, self.on_path, self.stop = capture, points, on_path, stop_when_complete
        self._keep = keep
        self._seen: set[str] = set()
        self.tensors: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._with_graph = False
        self._calls: dict[tuple[str, Side], int] = {}

    def see(self, module: str, side: Side, value: Any) -> None:
        if self._with_graph and not torch.is_grad_enabled():
            raise LayerError(
                got=f"layer {module!r}, which runs without gradients inside a training pass",
                needed="features that carry a gradient",
                fix="use checkpoint(..., use_reentrant=False), or name layers outside of what is checkpointed",
            )
        call = self._calls.get((module, side), 0)
        self._calls[module, side] = call + 1
        point = point_name(module, call, side)
        if point not in self.points:
            return
        if not isinstance(value, Tensor):
            raise LayerError(
                got=f"a {type(value).__name__} at layer {point!r}", needed="one tensor", fix="name a layer inside it"
            )
        self._seen.add(point)
        if point in self.on_path:
            self._keep_on_path(point, value)
        elif self._keep is None:
            # A copy, because an in-place activation right behind would overwrite what was asked for.
            self.tensors[point] = value.clone()
        else:
            self._keep(point, value.clone())
        if self.stop and len(self._seen) == len(self.points):
            raise _Enough

    def _keep_on_path(self, point: str, value: Tensor) -> None:
        if torch.is_grad_enabled() and not value.requires_grad:
            value.requires_grad_()  # a frozen backbone leaves no graph, but what comes behind still has a gradient
        self.tensors[point] = value
        if not torch.compiler.is_compiling():
            self._versions[point] = value._version

    def complete(self) -> dict[str, Tensor]:
        """The tensors that nobody else kept, in the order of the points asked for.

        Raises:
            LayerError: if a layer never ran, or one that had to stay on the path was overwritten.
        """
        missing = [point for point in self.points if point not in self._seen]
        if missing:
            raise LayerError(
                got=f"a forward pass in which {missing} never ran",
                needed="layers that run in every pass",
                fix="name other layers, or call the model as it was called when it was wrapped",
            )
        for point, version in self._versions.items():
            if self.tensors[point]._version != version:
                raise LayerError(
                    got=f"layer {point!r}, which a later operation overwrites in place",
                    needed="a layer whose output stays, to differentiate with respect to it",
                    fix="name the layer behind that operation",
                )
        return {point: self.tensors[point] for point in self.points if point in self.tensors}

    def __enter__(self) -> _Recording:
        self._with_graph = torch.is_grad_enabled()
        self.capture.recording = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.capture.recording = None
        return kind is _Enough


class Capture:
    """The hooks of one guard on one model.

    A hook that is registered while a compiled graph runs breaks the graph or never fires; one that is always there
    and looks at a flag does neither.
    """

    def __init__(self) -> None:
        """Start without hooks."""
        self.recording: _Recording | None = None
        self.installed = False
        self._handles: dict[tuple[str, Side], RemovableHandle] = {}

    def install(self, model: nn.Module, points: Iterable[str]) -> None:
        """Register what is needed to see these points; what is there already stays."""
        self.installed = True
        for place in map(_hooked_place, points):
            if place not in self._handles:
                path, side = place
                module, hook = model.get_submodule(path), _Hook(self, path, side)
                register = module.register_forward_pre_hook if side == "input" else module.register_forward_hook
                self._handles[place] = register(hook)

    def remove(self) -> None:
        """Take every hook off the model again."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()
        self.installed = False

    @contextmanager
    def lent(self, model: nn.Module, points: Iterable[str]) -> Iterator[None]:
        """Have hooks for these points for a while, on a model that has none of this capture's otherwise."""
        self.install(model, points)
        try:
            yield
        finally:
            self.remove()

    def record(
        self,
        points: Collection[str],
        *,
        on_path: Collection[str] = (),
        stop_when_complete: bool = False,
        keep: Keep | None = None,
    ) -> _Recording:
        """Open the gate for one pass.

        Args:
            points: the names of the places to record.
            on_path: those of them that are not copied, so that the logits can be differentiated with respect to them.
            stop_when_complete: whether to end the pass at the last of them. Not for compiled graphs, which drop what
                nobody reads by themselves.
            keep: is handed each place and a copy of what passes it, while the pass runs, and keeps what it wants.

        Returns:
            A context manager to run the pass in; its ``complete()`` gives the tensors afterwards.
        """
        return _Recording(self, points, on_path, stop_when_complete, keep)


def is_hooked(model: nn.Module) -> bool:
    """Whether a guard's hooks are on the model.

    Args:
        model: the network.
    """
    hooks = (h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values()))
    return any(isinstance(hook, _Hook) for hook in hooks)
