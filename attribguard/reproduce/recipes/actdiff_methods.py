"""The rows that the tables of the ActDiff paper share: its methods on its networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attribguard.reproduce.recipe import Row

__all__ = ["NAMES", "PAPER", "Figure", "method_rows"]

PAPER = "Viviano et al., *Underwhelming Generalization Improvements From Controlling Feature Attribution*"
Figure = tuple[float, float | None]

NAMES = {
    "classify": "classify",
    "ActDiff": "ActDiff",
    "GradMask": "GradMask",
    "both": "ActDiff & GradMask",
    "masked": "classify masked",
    "reconstruct": "reconstruct masked",
}
"""Short names of the methods, as the recipes have them, to the setting ``method``."""

_DECODERS = ("ConvAE", "UNet")
_PENALISED = ("ActDiff", "GradMask", "both")


def method_rows(
    network: str,
    paper: Mapping[str, Mapping[str, Figure]],
    *,
    suffix: str = "",
    chosen_by: str | None = None,
    **settings: Any,
) -> tuple[Row, ...]:
    """All methods on one network.

    Args:
        network: ``"CNN"``, ``"ConvAE"``, ``"UNet"`` or ``"ResNet"``.
        paper: short name of the method to the paper's figures, by metric.
        suffix: of the rows' names.
        chosen_by: the suffix of the rows whose settings are taken over; by default each row has its own search.
        **settings: of all rows; what is set here is not searched.
    """
    rows = []
    for short, method in NAMES.items():
        if short == "reconstruct" and network not in _DECODERS:
            continue
        rows.append(
            Row(
                f"{network} {method}{suffix}",
                {"network": network, "method": method, **settings},
                paper.get(short, {}),
                tuple(name for name in ("lr", "weight")[: 2 if short in _PENALISED else 1] if name not in settings),
                None if chosen_by is None else f"{network} {method}{chosen_by}",
            )
        )
    return tuple(rows)
