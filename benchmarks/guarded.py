"""Guarded steps as contestants, and their gradients held against plain autograd's."""

import copy
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attribguard as ag
from benchmarks import baselines
from benchmarks.networks import Batch
from benchmarks.workload import Absent, Check, Run

SHARED = {"gradients": "shared"}
"""The option of ``wrap`` by which GradMask and RRR share one input gradient; contestants are absent without it."""

PENALTIES: dict[str, Callable[[Any], ag.Penalty]] = {
    "actdiff": lambda corruption: ag.ActDiff(1.0, corruption=corruption),
    "gradmask": lambda corruption: ag.GradMask(1.0),
    "rrr": lambda corruption: ag.RRR(1.0),
    "gradcamrrr": lambda corruption: ag.GradCAMRRR(1.0),
}
ALL_FOUR = tuple(PENALTIES)


def guard_of(model: nn.Module, names: Sequence[str], corruption: Any = "shuffle", **options: Any) -> ag.Guard:
    """A guard with these penalties, each with a weight of 1."""
    return ag.wrap(model, penalties=[PENALTIES[name](corruption) for name in names], **options)


def plain_run(model: nn.Module, batch: Batch) -> Run:
    """Cross entropy alone, on a copy of the network."""
    return _step(copy.deepcopy(model), lambda network: baselines.plain_step(network, batch.x, batch.y))


def published_run(model: nn.Module, batch: Batch, names: Sequence[str], layer: str = "layer4") -> Run:
    """The published steps of these penalties, on a copy of the network."""
    own = copy.deepcopy(model)
    found = own.get_submodule(layer)
    return _step(own, lambda network: baselines.published_step(network, *batch, names, layer=found))


def guarded_run(
    model: nn.Module, batch: Batch, names: Sequence[str], annotated: Tensor | None = None, **options: Any
) -> Run:
    """Our step with these penalties, on a copy of the network."""
    if unknown := unknown_options(options):
        return Absent(f"this version has no {' and '.join(sorted(unknown))}=")
    guard = guard_of(copy.deepcopy(model), names, **options)

    def step(network: nn.Module) -> None:
        network(batch.x, batch.y, mask=batch.mask, annotated=annotated).loss.backward()

    return _step(guard, step)


def unknown_options(options: Iterable[str]) -> set[str]:
    """Those that this version of ``wrap`` does not have."""
    return set(options) - set(inspect.signature(ag.wrap).parameters)


def _step(network: nn.Module, step: Callable[[nn.Module], None]) -> Run:
    def run() -> None:
        network.zero_grad(set_to_none=True)
        step(network)

    return run


def gradients_agree(
    model: nn.Module,
    batch: Batch,
    names: Sequence[str],
    *,
    layer: str = "layer4",
    annotated: Tensor | None = None,
    claim: str = "gradients equal plain autograd's",
    **options: Any,
) -> Check:
    """In float64, on up to six images: the guard's parameter gradients against those of the definitions.

    The corruption is the outside's mean, the same in both; everything else is as it is timed.
    """
    ours = copy.deepcopy(model).double()
    theirs = copy.deepcopy(ours)
    few = Batch(batch.x[:6].double(), batch.y[:6], batch.mask[:6].double())
    some = None if annotated is None else annotated[:6]
    guard_of(ours, names, "mean", **options)(few.x, few.y, mask=few.mask, annotated=some).loss.backward()
    _by_definition(theirs, few, names, layer, some).backward()
    return Check(claim, relative_difference(gradients(ours), gradients(theirs)), 1e-5)


def gradients(model: nn.Module) -> Tensor:
    """Of all parameters, one after the other; 0 where there is none."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


def relative_difference(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def _by_definition(model: nn.Module, batch: Batch, names: Sequence[str], layer: str, some: Tensor | None) -> Tensor:
    """The loss with every penalty written out, its gradients left to autograd, rows that do not count at 0."""
    x = batch.x.requires_grad_()
    inside = batch.mask > 0.5
    counts = torch.ones(len(x), device=x.device, dtype=x.dtype) if some is None else some.to(x)
    maps: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: maps.append(output))
    with baselines.entering_relus(model) as entered:
        logits = model(x)
        clean = list(entered)
        entered.clear()
        mean = torch.where(inside, 0, batch.x).sum((2, 3), keepdim=True) / (~inside).sum((2, 3), keepdim=True)
        model(torch.where(inside, batch.x, mean).detach())
        handle.remove()
    values = {
        "actdiff": lambda: _rms(clean, entered),
        "gradmask": lambda: baselines.gradmask(logits, x, batch.mask),
        "rrr": lambda: baselines.rrr(logits, x, batch.mask),
        "gradcamrrr": lambda: _gradcam_rrr(logits, batch, maps[0]),
    }
    penalties = [(values[name]() * counts).mean() for name in names]
    return sum(penalties, F.cross_entropy(logits, batch.y))


def _rms(clean: Sequence[Tensor], corrupted: Sequence[Tensor]) -> Tensor:
    lengths = [(a - b).square().flatten(1).mean(1).sqrt() for a, b in zip(clean, corrupted, strict=True)]
    return torch.stack(lengths).mean(0)


def _gradcam_rrr(logits: Tensor, batch: Batch, maps: Tensor) -> Tensor:
    score = logits.gather(1, batch.y[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, maps, create_graph=True)
    cam = (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu()
    outside = F.adaptive_avg_pool2d(1 - batch.mask, cam.shape[1:])[:, 0]
    return (cam / (cam.amax((1, 2), keepdim=True) + 1e-6) * outside).square().flatten(1).sum(1)
