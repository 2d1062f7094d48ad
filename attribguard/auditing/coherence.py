"""Whether the parts of a report that was read fit together, so that it can be shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attribguard.auditing.rows import ATTRIBUTIONS, LOCALISATION, ImageRow
from attribguard.auditing.scanning import Scan

if TYPE_CHECKING:
    from attribguard.auditing.report import ModelReport

__all__ = ["check_report", "check_row"]


def check_row(row: ImageRow, networks: Collection[str]) -> None:
    """Refuse the row of an image that does not tell of all networks.

    Args:
        row: of the image.
        networks: their names.

    Raises:
        ValueError: if it does not, or a class is negative or no logit is there.
    """
    if row.seen.keys() != set(networks):
        raise ValueError(f"{row.name[:60]!r} as seen by {sorted(row.seen)[:3]}, not by {sorted(networks)}")
    for seen in row.seen.values():
        if not seen.logits or seen.where.keys() != LOCALISATION.keys() or min(row.target, seen.predicted) < 0:
            raise ValueError(f"{row.name[:60]!r} without logits, a class or a measure of where a network looks")


def check_report(models: Mapping[str, ModelReport], images: Sequence[ImageRow], settings: Mapping[str, Any]) -> None:
    """Refuse a report whose parts do not fit.

    Args:
        models: of the report.
        images: of the report.
        settings: of the report.

    Raises:
        ValueError: if a network is missing, or what was found of it is not whole.
    """
    if models.keys() not in ({"model"}, {"model", "baseline"}):
        raise ValueError(f"networks {sorted(models)[:3]}, not a model and perhaps a baseline")
    if len({bool(model.groups) for model in models.values()}) > 1:
        raise ValueError("groups of one network and not of the other")
    for model in models.values():
        if not model.figures.keys() >= {"accuracy", "inside"}:
            raise ValueError("a network without its accuracy or its evidence inside")
        if model.scan is not None:
            _check_scan(model.scan)
        if model.concepts is not None and not model.concepts.best:
            raise ValueError("concepts without a unit")
    for row in images:
        check_row(row, models.keys())
    odd = [name for name in ("names", "versions") if not isinstance(settings.get(name, {}), dict)]
    if odd or settings.get("attribution") not in list(ATTRIBUTIONS):
        raise ValueError(f"settings with an odd {odd[0] if odd else 'attribution'}")


def _check_scan(scan: Scan) -> None:
    for pair in scan.pairs:
        places = len(pair.drop)
        if min(scan.rows, scan.columns, pair.source, pair.target) < 0 or places not in (0, scan.rows * scan.columns):
            raise ValueError(f"a scan of {scan.rows} x {scan.columns} patches with {places} drops")
        if len(pair.p_values) not in (0, places) or any(abs(drop) > 1 for drop in pair.drop):
            raise ValueError("a scan with p values for other patches, or drops of certainty above 1")
