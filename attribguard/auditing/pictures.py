"""The report's figures as pictures of matplotlib, for papers and notebooks."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from attribguard.auditing.report import TITLES, AuditReport

__all__ = ["draw_report"]


def draw_report(report: AuditReport) -> dict[str, Figure]:
    """Draw what was found.

    Args:
        report: of an audit.

    Returns:
        ``"figures"``, and ``"scan"`` and ``"concepts"`` where there are any.
    """
    pictures = {"figures": _draw_figures(report)}
    if any(model.scan and any(pair.drop for pair in model.scan.pairs) for model in report.models.values()):
        pictures["scan"] = _draw_scans(report)
    if any(model.concepts for model in report.models.values()):
        pictures["concepts"] = _draw_concepts(report)
    return pictures


def _draw_figures(report: AuditReport) -> Figure:
    keys = [key for key in TITLES if any(key in model.figures for model in report.models.values())]
    picture = Figure(figsize=(6.5, 1.2 + 0.4 * len(keys)), layout="constrained")
    axis = picture.subplots()
    for shift, (name, model) in enumerate(report.models.items()):
        shown = [(y, one) for y, key in enumerate(keys) if (one := model.figures.get(key)) and one.value is not None]
        places = [y + 0.2 * shift for y, _ in shown]
        axis.plot([one.value or 0.0 for _, one in shown], places, "o", color=f"C{shift}", label=name)
        for y, (_, one) in zip(places, shown, strict=True):
            if one.low is not None and one.high is not None:
                axis.plot([one.low, one.high], [y, y], color=f"C{shift}")
    axis.set_yticks(range(len(keys)), [TITLES[key] for key in keys])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel(f"95 % intervals, {len(report.images)} images")
    axis.legend()
    return picture


def _draw_scans(report: AuditReport) -> Figure:
    scans = [
        (f"{name}: {report.class_name(pair.source)} with {report.class_name(pair.target)}", model.scan, pair)
        for name, model in report.models.items()
        if model.scan
        for pair in model.scan.pairs
        if pair.drop
    ]
    columns = min(3, len(scans))
    lines = -(-len(scans) // columns)
    picture = Figure(figsize=(3.2 * columns, 3 * lines), layout="constrained")
    axes = picture.subplots(lines, columns, squeeze=False).flatten()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, scan, pair) in zip(axes, scans, strict=False):
        cells = np.array(pair.drop).reshape(scan.rows, scan.columns)
        shown = axis.imshow(cells, vmin=0, vmax=1, cmap="magma")
        axis.set_title(title, fontsize=8)
    picture.colorbar(shown, ax=axes.tolist(), label="drop of certainty")
    return picture


def _draw_concepts(report: AuditReport) -> Figure:
    counted = {name: model.concepts for name, model in report.models.items() if model.concepts}
    picture = Figure(figsize=(4.5 * len(counted), 3.2), layout="constrained")
    for axis, (name, concepts) in zip(
        picture.subplots(1, len(counted), squeeze=False)[0], counted.items(), strict=True
    ):
        axis.bar([str(unit.unit) for unit in concepts.best], [unit.alignment for unit in concepts.best])
        axis.set_title(f"{name}: {concepts.disjoint:.1f} concepts an image", fontsize=9)
        axis.set_xlabel("unit")
        axis.set_ylabel("overlap with the regions (IoU)")
        axis.tick_params("x", rotation=90)
    return picture
