"""The report in one sentence."""

from __future__ import annotations

from attribguard.auditing.bootstrap import Figure
from attribguard.auditing.report import BASELINE, MODEL, TITLES, AuditReport

__all__ = ["verdict"]


def verdict(report: AuditReport) -> str:
    """How often the model is right, where it looks, what it clings to, and what the baseline does.

    Args:
        report: of an audit.
    """
    model = report.models[MODEL]
    clauses = [f"The model is right on {_share(model.figures['accuracy'])} of {len(report.images):,} images"]
    inside = model.figures["inside"]
    if inside.value is not None and report.relevant:
        times = inside.value / report.relevant
        clauses.append(
            f"{_share(inside)} of its evidence lies in the annotated regions, which cover {report.relevant:.1%} of the "
            f"area ({times:.1f} times what chance would put there)"
        )
    if model.scan is not None:
        clauses.append(_clings(report))
    if report.differences:
        shown = [key for key in ("accuracy", "inside") if key in report.differences]
        parts = [f"{TITLES[key]} {_signed(report.differences[key].figure)}" for key in shown]
        clauses.append(f"against the {BASELINE}: {', '.join(parts)}")
    return "; ".join(clauses) + "."


def _clings(report: AuditReport) -> str:
    scan = report.models[MODEL].scan
    assert scan is not None
    suspects = scan.suspects()
    if not suspects:
        tested = sum(not pair.untested for pair in scan.pairs)
        return "no single patch decides" if tested else "whether a patch decides could not be tested"
    pair, place = suspects[0]
    row, column = divmod(place, scan.columns)
    return (
        f"it clings to a patch: another class's in row {row + 1}, column {column + 1} takes {pair.drop[place]:.2f} of "
        f"its certainty of {report.class_name(pair.source)} (p = {pair.p_values[place]:.1g})"
    )


def _share(figure: Figure) -> str:
    if figure.value is None:
        return "–"
    text = f"{figure.value:.1%}"
    return text if figure.low is None or figure.high is None else f"{text} ({figure.low:.1%} to {figure.high:.1%})"


def _signed(figure: Figure) -> str:
    if figure.value is None:
        return "–"
    text = f"{figure.value:+.3f}"
    return text if figure.low is None or figure.high is None else f"{text} ({figure.low:+.3f} to {figure.high:+.3f})"
