"""What every reference network checks of its options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attribguard.errors import RangeError, check_choice
from attribguard.functional.checks import is_whole

__all__ = ["Norm", "check_list", "check_norm", "check_whole"]

Norm = Literal["none", "batch"]


def check_whole(least: int = 1, **numbers: object) -> None:
    """Refuse what is no whole number, or too small.

    Args:
        least: the smallest that is allowed.
        numbers: by name, as they are given.

    Raises:
        RangeError: for the first that does not fit.
    """
    for name, value in numbers.items():
        if not is_whole(value, least):
            needed = f"a whole number, {least} or more"
            raise RangeError(got=f"{name}={value!r}", needed=needed, fix=f"give another {name}")


def check_list(**lists: object) -> None:
    """Refuse what is no list of whole numbers of 1 or more, or empty.

    Args:
        lists: by name, as they are given.

    Raises:
        RangeError: for the first that does not fit.
    """
    for name, numbers in lists.items():
        if not isinstance(numbers, Sequence) or not numbers:
            needed = "a list of whole numbers, 1 or more"
            raise RangeError(got=f"{name}={numbers!r}", needed=needed, fix=f"give another {name}")
        check_whole(**{f"{name}[{i}]": number for i, number in enumerate(numbers)})


def check_norm(norm: object) -> None:
    """Refuse an unknown normalisation.

    Args:
        norm: as it is given.

    Raises:
        RangeError: if it is neither ``"none"`` nor ``"batch"``.
    """
    check_choice("norm", norm, ("none", "batch"))
