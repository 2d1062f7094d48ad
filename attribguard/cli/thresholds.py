"""--fail-on: a figure, a sign and a number, for pipelines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from attribguard.errors import RangeError

__all__ = ["Threshold", "findings", "read_thresholds"]


class Threshold(NamedTuple):
    """What makes a command fail.

    Attributes:
        figure: its name.
        below: whether it fails below the limit; above it otherwise.
        limit: the number.
    """

    figure: str
    below: bool
    limit: float


def read_thresholds(texts: Sequence[str], known: Sequence[str]) -> list[Threshold]:
    """Read what stands behind ``--fail-on``.

    Args:
        texts: such as ``"inside<0.5"`` or ``"drop>0.2"``.
        known: the figures there are.

    Raises:
        RangeError: if one is of another form.
    """
    found = []
    for text in texts:
        figure, sign, number = next((text.partition(sign) for sign in "<>" if sign in text), (text, "", ""))
        try:
            limit = float(number)
        except ValueError:
            limit = math.nan
        if figure.strip() not in known or not math.isfinite(limit):
            raise RangeError(
                got=f"--fail-on {text!r}", needed=f"FIGURE<NUMBER or FIGURE>NUMBER with one of {', '.join(known)}",
                fix="quote it, or the shell takes < and > for itself",
            )  # fmt: skip
        found.append(Threshold(figure.strip(), sign == "<", limit))
    return found


def findings(values: Mapping[str, float], thresholds: Sequence[Threshold]) -> list[str]:
    """The thresholds that are crossed, in words; a figure that could not be measured is a finding too.

    Args:
        values: the figures.
        thresholds: what they are held against.
    """
    found = []
    for figure, below, limit in thresholds:
        value = values.get(figure)
        if value is None:
            found.append(f"{figure} could not be measured")
        elif value < limit if below else value > limit:
            found.append(f"{figure} is {value:.3f}, {'below' if below else 'above'} {limit:g}")
    return found
