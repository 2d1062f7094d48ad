"""Know what is compiled, and refuse, from within a graph that is being compiled, what a graph cannot hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from attribguard.errors import ModelError

__all__ = ["is_compiled", "refusal"]


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` was applied to a module, by wrapping it, in place or to its ``forward`` alone.

    Args:
        module: one module, without those inside.
    """
    if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
        return True
    # `model.forward = torch.compile(model.forward)`; a function kept out of graphs has the one attribute too.
    forward = module.forward
    return hasattr(forward, "_torchdynamo_orig_callable") and not hasattr(forward, "_torchdynamo_disable")


def refusal(*, got: str, needed: str, fix: str) -> Callable[[], None]:
    """A function that refuses a compiled guard.

    A plain ``raise`` would not do: where the compiler understands it, it leaves the function uncompiled instead, in
    which nothing is wrong, and where it does not, it reports that it does not. This function the compiler must call.

    Args:
        got: as in :class:`attribguard.errors.AttribGuardError`, like what follows.
        needed: what was needed.
        fix: what to do.

    Returns:
        It raises :class:`ModelError`; with ``fullgraph=True`` comes the compiler's own error, with the text in it.
    """

    def refuse() -> None:
        raise ModelError(got=got, needed=needed, fix=fix)

    # All that the compiler prints of a function that it may not look into is its name.
    refuse.__qualname__ = f"got {got}; needed {needed}; {fix}"
    disabled: Callable[[], None] = torch.compiler.disable(refuse)
    return disabled
