"""Fill the page's template."""

from __future__ import annotations

import math
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from attribguard.auditing.report import BASELINE, MODEL, TITLES, AuditReport
from attribguard.auditing.rows import ATTRIBUTIONS, ImageRow
from attribguard.auditing.scanning import Scan
from attribguard.auditing.verdict import verdict

__all__ = ["render"]


def render(report: AuditReport) -> str:
    """Write the page. Whatever comes from data is escaped.

    Args:
        report: of an audit.

    Returns:
        HTML that asks nothing of the network.
    """
    loader = PackageLoader("attribguard.auditing", "page")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    names = {name: report.settings.get("names", {}).get(name, "") for name in (MODEL, BASELINE, "data")}
    return environment.get_template("page.html").render(
        report=report,
        verdict=verdict(report),
        titles={
            key: title for key, title in TITLES.items() if any(key in one.figures for one in report.models.values())
        },
        names=names,
        attribution=ATTRIBUTIONS[report.settings["attribution"]],
        suspects={name: _suspects(report, one.scan) for name, one in report.models.items() if one.scan},
        cards=[_card(report, row) for row in report.images if row.picture],
        style=loader.get_source(environment, "page.css")[0],
        script=loader.get_source(environment, "page.js")[0],
    )


def _card(report: AuditReport, row: ImageRow) -> dict[str, Any]:
    """What the gallery needs of an image."""
    return {
        "name": row.name,
        "target": report.class_name(row.target),
        "group": row.group,
        "picture": row.picture,
        "outline": row.outline,
        "seen": {
            name: {
                "predicted": report.class_name(seen.predicted),
                "right": seen.predicted == row.target,
                "certainty": _certainty(seen.logits),
                "inside": seen.where["inside"],
                "heat": seen.heat,
            }
            for name, seen in row.seen.items()
        },
    }


def _certainty(logits: list[float]) -> float:
    """The probability of the predicted class."""
    highest = max(logits)
    return 1 / sum(math.exp(value - highest) for value in logits)


def _suspects(report: AuditReport, scan: Scan) -> list[dict[str, Any]]:
    return [
        {
            "source": report.class_name(pair.source),
            "target": report.class_name(pair.target),
            "row": place // scan.columns + 1,
            "column": place % scan.columns + 1,
            "drop": pair.drop[place],
            "p": pair.p_values[place],
        }
        for pair, place in scan.suspects()
    ]
