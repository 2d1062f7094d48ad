"""Refuse, from within a graph that is being compiled, what a graph cannot hold."""

from __future__ import annotations

from collections.abc import Callable

import torch

from attribguard.errors import ModelError

__all__ = ["refusal"]


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
