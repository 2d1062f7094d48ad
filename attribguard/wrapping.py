"""``wrap``: from a model to a guard, with everything checked that can be checked before the first step."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from attribguard.capture import is_hooked
from attribguard.compiling import is_compiled
from attribguard.criterion import Criterion
from attribguard.errors import ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.guard import Guard
from attribguard.heads.base import Head
from attribguard.layers import check_layers
from attribguard.network import Output, floating_like
from attribguard.penalties.base import Penalty
from attribguard.plan import Reduction, needs_graph
from attribguard.processes import sharded_parts
from attribguard.step import Gradients
from attribguard.value_checks import Validate
from attribguard.weighting import Weighting

__all__ = ["wrap"]


def wrap(
    model: nn.Module,
    *,
    penalties: Sequence[Penalty] = (),
    heads: Sequence[Head] = (),
    criterion: Criterion | Literal["none"] | None = None,
    criterion_weight: float = 1.0,
    output: Output = None,
    example_input: Tensor | Sequence[int] | None = None,
    weighting: Weighting | None = None,
    reduction: Reduction = "batch",
    validate: Validate = "auto",
    gradients: Gradients = "exact",
) -> Guard:
    """Guard a model: the same model, with penalties on what it looks at.

    Nothing of the model is replaced or copied. Wrap first and distribute or compile the guard afterwards:
    ``DDP(wrap(model))``, ``fully_shard(wrap(model))``, ``torch.compile(wrap(model, ...))``.

    Args:
        model: any network from (N, C, H, W) images to logits (N, K).
        penalties: what is added to the loss, for instance ``[ActDiff(weight=10.0)]``.
        heads: auxiliary tasks on the features of the model, for instance ``[SegmentationHead(2, weight=0.4)]``; the dry
            run finds the feature maps, so that all their parameters exist afterwards.
        criterion: the classification loss, ``(logits, target)`` to a scalar or (N,). By default cross entropy for
            integer targets (N,) with two or more outputs and binary cross entropy with logits for targets (N,) or
            (N, 1) with one; other targets (mixup, multi-label) need one. ``"none"`` leaves classification out and
            trains the heads alone: targets may then be ``None``, and ``guard(x)`` is the first head's prediction.
        criterion_weight: its weight, 0 or more.
        output: picks the logits where the model gives a tuple or dict: an index, a key or a callable.
        example_input: a tensor (N, C, H, W) or a shape (C, H, W) for the dry run that finds the layers. Without it the
            configuration of a timm model serves if the model accepts it, otherwise the first guarded call. A guard
            with heads, or one that is compiled before its first call, needs one of the first two.
        weighting: ``None`` for the fixed weights; :class:`Uncertainty` or :class:`GradNorm` to adapt them, with
            parameters among the guard's own.
        reduction: ``"batch"`` divides each penalty's and head's sum by the number of images, so that accumulated and
            distributed batches add up; ``"annotated"`` by the number of annotated ones.
        validate: whether to look at the values of masks and targets: ``"auto"`` always on the CPU, in the first ten
            steps on an accelerator, never in a compiled graph. Shapes and types are always checked.
        gradients: how the gradients inside penalties are taken. ``"exact"``: the quickest way that equals autograd;
            ``"shared"``: one input gradient for all scores of two classes or one output even where one image changes
            another's logits, as in BatchNorm in train mode. There it is another definition: the sum of the margins is
            differentiated and scaled by each image's own slope, instead of the sum of the scores. ``"autograd"``: no
            closed form, shared gradient or double backward by formula, for comparison.

    Returns:
        The guard.

    Raises:
        ModelError: if the model is a guard, compiled, scripted, distributed or sharded, or gives no single tensor.
        TypeMismatchError: if an argument is of the wrong kind.
        RangeError: if a weight is negative or not finite, an option unknown, or two terms have one name.
        LayerError: if a penalty or head asks for a layer that the model does not have, or no map is found for a head.

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
    _check_terms(penalties, heads, criterion, weighting)
    for layers in (*(penalty.layers for penalty in penalties), *(head.layers for head in heads)):
        check_layers(layers, model)
    guard = Guard(
        model,
        list(penalties),
        list(heads),
        criterion,
        criterion_weight,
        output,
        weighting,
        reduction,
        validate,
        gradients,
    )
    try:
        example = _example(model, example_input)
        if example is None:
            _look_as_configured(guard)
        else:
            guard.survey(example)
        if heads and guard.layers is None:
            raise ModelError(
                got="heads on a model of which it is not known what images it takes",
                needed="one look at the network, to build the decoders",
                fix="pass example_input, for instance the shape (3, 224, 224)",
            )
        if weighting is not None:
            classification = () if criterion == "none" else ("criterion",)
            names = (*classification, *(term.name for term in (*heads, *penalties)))
            weighting.setup(names, floating_like(model))
    except BaseException:
        guard.unwrap()  # a guard that nobody gets may leave no hook, and no decoder
        for head in heads:
            head.detach()
        raise
    return guard


def _look_as_configured(guard: Guard) -> None:
    """The dry run on the images that a timm model's configuration names, if it does and the model accepts them."""
    configured = _configured(guard.model)
    if configured is not None:
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
    if any(map(is_compiled, modules)):
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
    if sharded_parts(model):
        raise ModelError(
            got="a model that is sharded, as a whole or in parts",
            needed="the model itself",
            fix="wrap the model and shard the guard: fully_shard(wrap(model, ...))",
        )


def _check_terms(penalties: Sequence[Penalty], heads: Sequence[Head], criterion: Any, weighting: Any) -> None:
    for what, terms, kind, how in (
        ("penalties", penalties, Penalty, "penalties=[ActDiff(weight=10.0)]"),
        ("heads", heads, Head, "heads=[SegmentationHead(2, weight=0.4)]"),
    ):
        if not isinstance(terms, Sequence) or not all(isinstance(term, kind) for term in terms):
            needed = f"a list of {kind.__name__} objects"
            raise TypeMismatchError(got=f"{what}={terms!r}", needed=needed, fix=f"make them, as in {how}")
    names = ["criterion", *(term.name for term in (*penalties, *heads))]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RangeError(got=f"the names {twice} twice", needed="one name a term", fix="pass name= to one of them")
    if any(head.decoder is not None for head in heads):
        raise ModelError(got="a head that is in a guard already", needed="a head a guard", fix="make a new one")
    if weighting is not None and not isinstance(weighting, Weighting):
        raise TypeMismatchError(got=f"weighting={weighting!r}", needed="a Weighting", fix="pass Uncertainty()")
    if criterion == "none":
        if not heads:
            raise RangeError(got="criterion='none' without heads", needed="something to train", fix="pass heads=[...]")
        if needs_graph(penalties):
            raise RangeError(
                got="criterion='none' with a penalty on the gradients of the logits",
                needed="logits that are trained",
                fix="pass a criterion, or use penalties on features such as ActDiff",
            )
    elif (criterion is not None and not callable(criterion)) or isinstance(criterion, type):
        raise TypeMismatchError(
            got=f"criterion={criterion!r}", needed="a callable object, or 'none'", fix="make it: Criterion()"
        )


def _example(model: nn.Module, example: Tensor | Sequence[int] | None) -> Tensor | None:
    """The user's example, or one of that shape, as the model takes it."""
    if example is None:
        return None
    like = floating_like(model)
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
