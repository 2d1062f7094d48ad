"""Several processes: whether this is one of them, and what a network that they share cannot do."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attribguard.errors import ModelError

__all__ = [
    "check_differentiable_again",
    "check_sharding",
    "everywhere",
    "gather_for_gradients",
    "in_process_group",
    "sharded_parts",
]


def in_process_group() -> bool:
    """Whether this is one of several processes that know of each other."""
    return dist.is_available() and dist.is_initialized()


def everywhere(flag: Tensor) -> bool:
    """Whether something holds in all processes, which have to ask together.

    Args:
        flag: one bool, on the device on which the processes talk.
    """
    if in_process_group():
        flag = flag.float()  # not every backend reduces bools
        dist.all_reduce(flag, dist.ReduceOp.MIN)
    return bool(flag)


def sharded_parts(module: nn.Module) -> list[str]:
    """The modules in this one that ``fully_shard`` was called on, or that are in ``FullyShardedDataParallel``.

    Args:
        module: the network, or all of the guard.

    Returns:
        Names as in ``named_modules``; the empty one stands for the module itself.
    """
    # Nothing is sharded outside of a process group; a compiled graph could not follow the search.
    if torch.compiler.is_compiling() or not in_process_group():
        return []
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    return [n for n, part in module.named_modules() if isinstance(part, FSDPModule | FullyShardedDataParallel)]


def gather_for_gradients(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Let gradients that enter a sharded module in its middle find its parameters there, as those at its end do.

    Args:
        model: the network.
        tensors: what was recorded of a pass, by its place in there.

    Returns:
        The same.
    """
    parts = {f"{name}." if name else "": model.get_submodule(name) for name in sharded_parts(model)}
    for point, tensor in tensors.items():
        around = [part for prefix, part in parts.items() if point.startswith(prefix)]
        if around and tensor.requires_grad:
            tensor.register_hook(functools.partial(_gather, around))
    return tensors


def _gather(parts: list[Any], gradient: Tensor) -> None:
    for part in parts:
        part.unshard()


def check_sharding(guard: nn.Module, adapts: bool) -> None:
    """Refuse a guard that is not sharded as a whole, or not called in the way that gathers its parameters.

    Args:
        guard: the guard.
        adapts: whether it has a weighting.

    Raises:
        ModelError: if a part is sharded and the guard is not, the weighting's parameters would part, or the guard's own
            parameters are not there.
    """
    parts = sharded_parts(guard)
    if not parts:
        return
    if "" not in parts:
        raise ModelError(
            got=f"a guard of which {parts[0]!r} is sharded and the rest is not",
            needed="a guard that is sharded as a whole",
            fix="call fully_shard(guard) too, after its parts",
        )
    if adapts:
        raise ModelError(
            got="a sharded guard with a weighting",
            needed="the weighting's parameters whole in each process",
            fix="leave `weighting` out, or use DistributedDataParallel(guard)",
        )
    from torch.distributed.tensor import DTensor

    inside = tuple(f"{part}." for part in parts if part)
    if any(isinstance(p, DTensor) and not name.startswith(inside) for name, p in guard.named_parameters()):
        raise ModelError(
            got="a sharded guard in another call than guard(...), which does not gather its parameters",
            needed="a method that torch knows of",
            fix='call torch.distributed.fsdp.register_fsdp_forward_method(guard, "predict") first, for that method',
        )


def check_differentiable_again(model: nn.Module, behind: Collection[str] | None = None) -> None:
    """Refuse modules through which, among several processes, torch cannot differentiate a gradient again.

    Args:
        model: the network.
        behind: the modules that the gradient passes; all by default.

    Raises:
        ModelError: if one of them is a SyncBatchNorm that synchronises, or part of what is sharded apart.
    """
    if not in_process_group():
        return

    def passed(name: str) -> bool:
        return behind is None or any(not name or other == name or other.startswith(f"{name}.") for other in behind)

    part = next(filter(passed, sharded_parts(model)), None)
    if part is not None:
        raise ModelError(
            got=f"a penalty on gradients that pass {part or 'the model'!r}, which is sharded apart from the guard",
            needed="parameters that stay until the gradient is differentiated again, as those of fully_shard(guard) do",
            fix="shard the guard alone, use DistributedDataParallel(guard), or penalties on features such as ActDiff",
        )
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm) and m.training}
    norm = next((n for n, m in norms.items() if passed(n) and dist.get_world_size(m.process_group) > 1), None)
    if norm is not None:
        raise ModelError(
            got=f"a penalty on gradients that pass {norm!r}, a SyncBatchNorm",
            needed="layers with a second derivative, which torch's SyncBatchNorm does not have",
            fix="use BatchNorm or GroupNorm, or penalties on features such as ActDiff",
        )
