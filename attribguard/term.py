"""What penalties and heads have in common: a name, and a weight that may be changed between steps."""

from __future__ import annotations

import math
from abc import ABC
from numbers import Real

from torch import nn

from attribguard.errors import RangeError, TypeMismatchError

__all__ = ["Term", "check_weight"]


def check_weight(weight: float, what: str) -> float:
    """Refuse a weight that is not a finite number of 0 or more.

    Args:
        weight: the number.
        what: its name, for the error.

    Returns:
        The weight as a float.

    Raises:
        TypeMismatchError: if it is not a number.
        RangeError: if it is negative or not finite.
    """
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise TypeMismatchError(got=f"{what} {weight!r}", needed="a number", fix="pass a float of 0 or more")
    if not (math.isfinite(weight) and weight >= 0):
        raise RangeError(got=f"{what} {weight}", needed="a finite number, 0 or more", fix="0 takes it out of the loss")
    return float(weight)


class Term(nn.Module, ABC):
    """A term of the loss.

    Args:
        weight: 0 or more; may be changed between steps (``term.weight = ...``), for a warm-up.
        name: its name in the output.

    Raises:
        RangeError: if the weight is negative or not finite.
        TypeMismatchError: if the weight is not a number.
    """

    def __init__(self, weight: float, name: str) -> None:
        super().__init__()
        self.weight = weight
        self.name = name

    @property
    def weight(self) -> float:
        """The factor in front of the term."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._weight = check_weight(weight, "weight")

    def extra_repr(self) -> str:
        """What distinguishes this one."""
        return f"weight={self.weight}, name={self.name!r}"
