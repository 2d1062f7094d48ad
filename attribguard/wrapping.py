"""``wrap``: from a model to a guard, with everything checked that can be checked before the first step."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from attribguard.capture import is_hooked
from attribguard.criterion import Criterion
from attribguard.errors import ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.guard import Guard
from attribguard.layers import check_layers
from attribguard.network import Output
from attribguard.objective import Reduction
from attribguard.penalties.base import Penalty
from attribguard.value_checks import Validate

__all__ = ["wrap"]


def wrap(
    model: nn.Module,
    *,
    penalties: Sequence[Penalty] = (),
    heads: Sequence[Any] = (),
    criterion: Criterion | None = None,
    criterion_weight: float = 1.0,
    output: Output = None,
    example_input: Tensor | Sequence[int] | None = None,
    weighting: Any = None,
    reduction: Reduction = "batch",
    validate: Validate = "auto",
) -> Guard:
    """Guard a model: the same model, with penalties on what it looks at.

    Nothing of the model is replaced or copied. Wrap first and distribute or compile the guard afterwards:
    ``DDP(wrap(model))``, ``torch.compile(wrap(model, ...))``.

    Args:
        model: any network from (N, C, H, W) images to logits (N, K).
        penalties: what is added to the loss, for instance ``[ActDiff(weight=10.0)]``.
        heads: reserved for auxiliary tasks; there are none yet.
        criterion: the classification loss, ``(logits, target)`` to a scalar or (N,). By default cross entropy for
            integer targets (N,) with two or more outputs and binary cross entropy with logits for targets (N,) or
            (N, 1) with one; other targets (mixup, multi-label) need one.
        criterion_weight: its weight, 0 or more.
        output: picks the logits where the model gives a tuple or dict: an index, a key or a callable.
        example_input: a tensor (N, C, H, W) or a shape (C, H, W) for the dry run that finds the layers. Without it the
            configuration of a timm model serves if the model accepts it, otherwise the first guarded call. A guard
            that is compiled before its first call needs one of the first two.
        weighting: reserved for adaptive weights; there are none yet.
        reduction: ``"batch"`` divides each penalty's sum by the number of images, so that accumulated and distributed
            batches add up; ``"annotated"`` by the number of annotated ones.
        validate: whether to look at the values of masks and targets: ``"auto"`` always on the CPU, in the first ten
            steps on an accelerator, never in a compiled graph. Shapes and types are always checked.

    Returns:
        The guard.

    Raises:
        ModelError: if the model is a guard, compiled, scripted or distributed already, or gives no single tensor.
        TypeMismatchError: if an argument is of the wrong kind.
        RangeError: if a weight is negative or not finite, an option unknown, or two penalties have one name.
        LayerError: if a penalty asks for a layer that the model does not have.

    Example:
        >>> from attribguard import ActDiff
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
        >>> guard = wrap(model, penalties=[ActDiff(weight=10.0)])
        >>> x, y, mask = torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), torch.ones(2, 8, 8)
        >>> sorted(guard(x, y, mask=mask).terms)
        ['actdiff', 'criterion']
        >>> guard.unwrap() is model
        True
    """
    _check_model(model)
    _check_penalties(penalties)
    if heads or weighting is not None:
        raise RangeError(
            got="heads or a weighting", needed="neither: this version has none", fix="leave `heads` and `weighting` out"
        )
    if (criterion is not None and not callable(criterion)) or isinstance(criterion, type):
        raise TypeMismatchError(got=f"criterion={criterion!r}", needed="a callable object", fix="make it: Criterion()")
    for penalty in penalties:
        check_layers(penalty.layers, model)
    guard = Guard(model, list(penalties), criterion, criterion_weight, output, reduction, validate)
    try:
        _look(guard, example_input)
    except BaseException:
        guard.unwrap()  # a guard that nobody gets may leave no hook
        raise
    return guard


def _look(guard: Guard, example_input: Tensor | Sequence[int] | None) -> None:
    """The dry run, if there is anything to run it on."""
    example = _example(guard.model, example_input)
    if example is not None:
        guard.survey(example)
    elif (configured := _configured(guard.model)) is not None:
        # The configuration describes the published weights, not this instance, whose channels or image size may be
        # others: a model that refuses it waits for its first batch.
        with contextlib.suppress(RuntimeError, AssertionError):
            guard.survey(configured)


def _check_model(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise TypeMismatchError(got=f"a model of {type(model).__name__}", needed="a torch.nn.Module", fix="build it")
    modules = list(model.modules())
    if any(isinstance(module, Guard) for module in modules) or is_hooked(model):
        raise ModelError(got="a model that is wrapped already", needed="the model itself", fix="call unwrap() first")
    if any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in modules):
        raise ModelError(
            got="a compiled model, on which hooks never fire",
            needed="the model before torch.compile",
            fix="wrap the model and compile the guard: torch.compile(wrap(model, ...))",
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
        raise ModelError(got="a scripted model", needed="a model in Python", fix="wrap it before torch.jit")
    if any(isinstance(m, LazyModuleMixin) and m.has_uninitialized_params() for m in modules):
        raise ModelError(got="a model with lazy modules", needed="parameters", fix="call it once, then wrap it")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise ModelError(
            got=f"a model in {type(model).__name__}",
            needed="the model itself",
            fix="wrap the model and distribute the guard: DistributedDataParallel(wrap(model, ...))",
        )


def _check_penalties(penalties: Sequence[Penalty]) -> None:
    if not isinstance(penalties, Sequence) or not all(isinstance(penalty, Penalty) for penalty in penalties):
        raise TypeMismatchError(
            got=f"penalties={penalties!r}",
            needed="a list of Penalty objects",
            fix="make them, as in penalties=[ActDiff(weight=10.0)]",
        )
    names = ["criterion", *(penalty.name for penalty in penalties)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RangeError(got=f"the names {twice} twice", needed="one name a term", fix="pass name= to one of them")


def _example(model: nn.Module, example: Tensor | Sequence[int] | None) -> Tensor | None:
    """The user's example, or one of that shape, as the model takes it."""
    if example is None:
        return None
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    if isinstance(example, Tensor):
        if example.dim() != 4 or not example.is_floating_point():
            raise ShapeError(
                got=f"an example_input of {example.dtype} and shape {tuple(example.shape)}",
                needed="a floating-point tensor (N, C, H, W)",
                fix="add the batch axis, or pass the shape (C, H, W)",
            )
        return example.to(like.device)
    shape = tuple(example) if isinstance(example, Sequence) else ()
    if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ShapeError(got=f"example_input={example!r}", needed="a tensor or a shape (C, H, W)", fix="pass one")
    # Noise of its own: a constant image can hide what a network depends on, and the global random state is the user's.
    noise = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    return noise.to(like.device, like.dtype)


def _configured(model: nn.Module) -> Tensor | None:
    configuration = getattr(model, "pretrained_cfg", None)
    size = configuration.get("input_size") if isinstance(configuration, dict) else None
    return None if size is None else _example(model, size)
