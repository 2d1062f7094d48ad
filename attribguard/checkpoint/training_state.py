"""All that a training consists of, saved to one file and loaded from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from attribguard.checkpoint.checked_file import not_a_checkpoint, read_checked, write_checked
from attribguard.checkpoint.random_states import (
    device_states,
    host_states,
    restore_device_states,
    restore_host_states,
)
from attribguard.errors import DataError, TypeMismatchError
from attribguard.functional.checks import is_whole
from attribguard.guard import Guard
from attribguard.network import without_wrappers
from attribguard.term import check_weight

__all__ = ["Stateful", "load", "save"]


class Stateful(Protocol):
    """An optimizer, a learning rate's schedule, an average of weights, a gradient scaler, or anything like these."""

    def state_dict(self) -> dict[str, Any]:
        """The state: tensors and plain values."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Go on from it."""


def save(
    path: str | Path,
    guard: nn.Module,
    optimizer: Stateful,
    *,
    step: int = 0,
    settings: Mapping[str, Any] | None = None,
    **parts: Stateful | torch.Generator,
) -> None:
    """Save a training, between two of its steps.

    The file holds the guard's weights and buffers, its heads' and its ``weighting``'s, the fixed weights of all terms
    as they are now, the states of the optimizer and of the other parts, and those of torch's generators (of the CPU and
    of the devices on which the guard is), of Python's ``random`` and of numpy's global generator. It is written aside,
    with a checksum, and takes the place of an earlier one in one step: a process that is killed at any moment leaves
    the earlier one or the new one.

    Gradients are not kept: where they are accumulated over batches, save after the optimizer's step. In several
    processes each has draws and a sampler of its own, and saves to a path of its own.

    Args:
        path: the file, whose folder is made if need be.
        guard: the guard, or what is around it (``torch.compile``, ``DistributedDataParallel``), which leaves no trace.
        optimizer: the optimizer.
        step: how far the training is, 0 or more, in whatever unit the loop counts.
        settings: what a run must have in common with this one to go on with it, such as its seed: plain values.
        **parts: whatever else has a state, by a name of your choice: schedules, averages of weights, scalers, a
            :class:`ResumableLoader`, further optimizers, and generators that were handed to something.

    Raises:
        TypeMismatchError: if something has no state, or one that cannot be read back without running code.
        OSError: if the system does not let the file be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import attribguard
        >>> guard = attribguard.wrap(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), penalties=[attribguard.RRR(1.0)])
        >>> optimizer = torch.optim.Adam(guard.parameters())
        >>> with TemporaryDirectory() as folder:
        ...     attribguard.checkpoint.save(f"{folder}/run.ckpt", guard, optimizer, step=3)
        ...     attribguard.checkpoint.load(f"{folder}/run.ckpt", guard, optimizer)
        3
    """
    inner, stateful = _guard_in(guard), _checked(optimizer, parts)
    if not is_whole(step, 0):
        raise TypeMismatchError(got=f"step={step!r}", needed="a whole number, 0 or more", fix="count the steps")
    content = {
        "step": step,
        "settings": dict(settings or {}),
        "forms": {name: _form(part) for name, part in {"guard": inner, **stateful}.items()},
        "guard": inner.state_dict(),
        "weights": _weights(inner),
        "parts": {name: _state(part) for name, part in stateful.items()},
        "random": _random_states(inner),
    }
    write_checked(Path(path), content)


def load(
    path: str | Path,
    guard: nn.Module,
    optimizer: Stateful,
    *,
    settings: Mapping[str, Any] | None = None,
    **parts: Stateful | torch.Generator,
) -> int:
    """Go on with a training that :func:`save` saved, where everything was built again as it was built then.

    On the same machine and software the training ends with exactly the numbers with which it would have ended, as far
    as its operations are deterministic. It may go on on another kind of device, whose generator then keeps its state.
    Nothing in the file is ever run as code.

    Args:
        path: the file.
        guard: as in :func:`save`; whether something is around it need not be as it was.
        optimizer: likewise.
        settings: likewise; they must be equal.
        **parts: likewise, by the same names.

    Returns:
        The step that was saved.

    Raises:
        DataError: if the file is no checkpoint, of another version, damaged, or of another training (network, terms,
            optimizer, parts or settings); nothing has changed then.
        TypeMismatchError: if something has no state.
    """
    path = Path(path)
    inner, stateful = _guard_in(guard), _checked(optimizer, parts)
    content = read_checked(path)
    forms_now = {name: _form(part) for name, part in {"guard": inner, **stateful}.items()}
    try:
        tensors, states, numbers, step = content["guard"], content["parts"], content["random"], int(content["step"])
        weights = {name: check_weight(weight, name) for name, weight in content["weights"].items()}
        forms = {name: (form["kind"], dict(form["shapes"])) for name, form in content["forms"].items()}
        _compare(path, "setting", dict(content["settings"]), dict(settings or {}))
        _compare(path, "part", {name: kind for name, (kind, _) in forms.items()}, _kinds(forms_now))
        for name, form in forms_now.items():
            _compare(path, f"{name}'s tensor", forms[name][1], form["shapes"])
        _compare(path, "guard's tensor", _shapes(tensors), forms_now["guard"]["shapes"])
        _compare(path, "term", dict.fromkeys(weights, "a weight"), dict.fromkeys(_weights(inner), "a weight"))
    except DataError:
        raise
    except (TypeError, KeyError, ValueError, IndexError, AttributeError):
        raise not_a_checkpoint(path) from None
    before, random = {name: copy.deepcopy(_state(part)) for name, part in stateful.items()}, _random_states(inner)
    name = "random"
    try:
        _restore_random_states(numbers, inner)
        for name, part in stateful.items():
            _restore(part, states[name])
    except Exception as error:  # whatever a part's own load_state_dict refuses
        for other, part in stateful.items():
            _restore(part, before[other])
        _restore_random_states(random, inner)
        raise DataError(
            got=f"{path}, whose {name!r} cannot be loaded ({' '.join(str(error).split())[:300]})",
            needed="that of the same training",
            fix="build everything as it was built when it was saved",
        ) from error
    inner.load_state_dict(tensors)
    for name, term in _terms(inner).items():
        term.weight = weights[name]
    inner.criterion_weight = weights["criterion"]
    return step


def _random_states(guard: Guard) -> dict[str, Any]:
    return {"host": host_states(), "devices": device_states(guard)}


def _restore_random_states(states: dict[str, Any], guard: Guard) -> None:
    restore_device_states(states["devices"], guard)
    restore_host_states(states["host"])


def _guard_in(module: nn.Module) -> Guard:
    guard = without_wrappers(module)
    if not isinstance(guard, Guard):
        raise TypeMismatchError(
            got=f"a {type(guard).__name__} in the guard's place", needed="a guard", fix="pass what wrap gave"
        )
    return guard


def _checked(optimizer: Stateful, parts: Mapping[str, Any]) -> dict[str, Any]:
    # The optimizer last: a schedule may write into it.
    stateful = {**parts, "optimizer": optimizer}
    for name, part in stateful.items():
        methods = (getattr(part, method, None) for method in ("state_dict", "load_state_dict"))
        if name == "guard" or not (isinstance(part, torch.Generator) or all(map(callable, methods))):
            raise TypeMismatchError(
                got=f"{name}={type(part).__name__}",
                needed="state_dict and load_state_dict, or a torch.Generator, under another name than 'guard'",
                fix="pass the object that keeps the state",
            )
    return stateful


def _terms(guard: Guard) -> dict[str, Any]:
    return {term.name: term for term in (*guard.penalties, *guard.heads.values())}


def _weights(guard: Guard) -> dict[str, float]:
    return {name: term.weight for name, term in _terms(guard).items()} | {"criterion": guard.criterion_weight}


def _state(part: Any) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _restore(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    else:
        part.load_state_dict(state)


def _form(part: Any) -> dict[str, Any]:
    """What two runs' parts must have in common: their kind, and shapes and types of the tensors that they are for."""
    tensors: dict[str, Any] = {}
    if isinstance(part, nn.Module):
        tensors = part.state_dict()
    elif isinstance(part, torch.optim.Optimizer):
        # Its own load_state_dict would take the state of parameters of other shapes.
        for group, options in enumerate(part.param_groups):
            tensors |= {f"group {group}, parameter {number}": p for number, p in enumerate(options["params"])}
    return {"kind": type(part).__name__, "shapes": _shapes(tensors)}


def _shapes(values: Mapping[str, Any]) -> dict[str, str]:
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    return {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in tensors.items()}


def _kinds(forms: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {name: form["kind"] for name, form in forms.items()}


def _compare(path: Path, what: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse the first difference between what was saved and what is here."""
    for name in (*now, *then):
        if name not in then or name not in now or then[name] != now[name]:
            saved, here = (f"{those[name]}" if name in those else "none" for those in (then, now))
            raise DataError(
                got=f"{path}, a checkpoint of another training: {what} {name!r} was {saved}",
                needed=here,
                fix="build everything as it was built when it was saved, or name another file",
            )
