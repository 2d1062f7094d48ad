"""What the generated data sets share: whole numbers as arguments, and streams that are the same on every machine."""

from __future__ import annotations

import numpy as np

from attribguard.errors import DataError
from attribguard.functional.checks import is_whole

__all__ = ["check_whole", "stream"]


def check_whole(name: str, value: int, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number within its range.

    Args:
        name: of the argument.
        value: what was given.
        least: the lowest that is allowed.
        most: the highest, if there is one.

    Raises:
        DataError: if it is not whole or out of range.
    """
    if not is_whole(int(value) if isinstance(value, np.integer) else value, least, most):
        needed = f"a whole number, {least} or more" if most is None else f"a whole number, {least} to {most}"
        raise DataError(got=f"{name}={value!r}", needed=needed, fix=f"give another {name}")


def stream(split: int, seed: int) -> np.random.Generator:
    """The random stream of one split; no two pairs of split and seed share one.

    Args:
        split: its number, from 0.
        seed: 0 or more.
    """
    # The split comes first: NumPy cuts a long seed into words, and [seed, split] could then equal another pair's.
    # PCG64 by name, because NumPy may change what default_rng() stands for.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([split, int(seed)])))
