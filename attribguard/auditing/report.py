"""What an audit found: figures, scan, units and images, to be shown, kept, and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from attribguard.auditing.bootstrap import Figure
from attribguard.auditing.coherence import check_report
from attribguard.auditing.concepts import Concepts
from attribguard.auditing.figures import CLASSIFICATION, Difference, GroupFigure
from attribguard.auditing.rows import LOCALISATION, ImageRow
from attribguard.auditing.scanning import Scan
from attribguard.errors import DataError
from attribguard.plain_data import parse_json, read_regular, typed

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = ["BASELINE", "MODEL", "TITLES", "AuditReport", "ModelReport"]

MODEL, BASELINE = "model", "baseline"
TITLES = {**CLASSIFICATION, **LOCALISATION}
FORMAT = 1


@dataclass(frozen=True)
class ModelReport:
    """What was found of one network.

    Attributes:
        figures: of all images, ``"accuracy"``, ``"auroc"``, ``"ap"``, ``"inside"``, ``"pointing"``,
            ``"soft_iobb"`` and ``"soft_ior"``, as far as they could be measured.
        groups: accuracy by group, the worst first.
        scan: of patches, or ``None``.
        concepts: of units, or ``None``.
    """

    figures: Mapping[str, Figure]
    groups: list[GroupFigure]
    scan: Scan | None
    concepts: Concepts | None


@dataclass(frozen=True)
class AuditReport:
    """What :func:`attribguard.audit` found.

    Attributes:
        models: ``"model"``, and ``"baseline"`` where there is one, to what was found of it.
        differences: figure to how much more the model has than the baseline; empty without one.
        class_names: of the classes, in order.
        annotated: how many of the images have a region, and ``relevant``: the mean share of their area in it.
        relevant: see there.
        left_out: what was left out and why, in sentences.
        settings: of the audit: seed, options, versions, and what the networks and the data are called.
        images: one row an image.
    """

    models: Mapping[str, ModelReport]
    differences: Mapping[str, Difference]
    class_names: list[str]
    annotated: int
    relevant: float
    left_out: list[str]
    settings: Mapping[str, Any]
    images: list[ImageRow]

    def class_name(self, number: int) -> str:
        """The name of a class; its number where it has none.

        Args:
            number: of the class.
        """
        return self.class_names[number] if number < len(self.class_names) else str(number)

    def values(self) -> dict[str, float]:
        """The model's figures by name, those that are defined; ``"drop"`` is the largest drop of a suspected patch."""
        model = self.models[MODEL]
        values = {key: figure.value for key, figure in model.figures.items() if figure.value is not None}
        if model.groups and model.groups[0].accuracy.value is not None:
            values["worst_group"] = model.groups[0].accuracy.value
        if model.scan is not None:
            suspects = model.scan.suspects()
            values["drop"] = suspects[0][0].drop[suspects[0][1]] if suspects else 0.0
        return values

    def summary(self) -> Table:
        """The figures as a table to print with ``rich``."""
        table = Table(title=f"{len(self.images)} images, {self.annotated} of them annotated", caption="95 % intervals")
        table.add_column("")
        for name in self.models:
            table.add_column(name, justify="right")
        if self.differences:
            table.add_column("difference", justify="right")
        for key, title in TITLES.items():
            cells = [str(model.figures[key]) if key in model.figures else "–" for model in self.models.values()]
            if self.differences:
                one = self.differences.get(key)
                cells.append(f"{one.figure}, p = {one.p_value:.2g}" if one else "")
            table.add_row(title, *cells)
        if any(model.groups for model in self.models.values()):
            worst = [model.groups[0] for model in self.models.values()]
            cells = [f"{one.accuracy} ({one.group})" for one in worst]
            table.add_row("worst group", *cells, *([""] if self.differences else []))
        return table

    def figures(self) -> dict[str, matplotlib.figure.Figure]:
        """The figures as pictures of matplotlib, by name: ``"figures"``, ``"scan"`` and ``"concepts"``."""
        from attribguard.auditing.pictures import draw_report  # matplotlib takes a while to import

        return draw_report(self)

    def to_html(self, path: str | Path) -> Path:
        """Write the page: one file that needs no network.

        Args:
            path: of the file; one of that name is replaced.

        Returns:
            The path.

        Raises:
            DataError: if it cannot be written.
        """
        from attribguard.auditing.page import render  # jinja2 is needed by nothing else

        return _write(Path(path), render(self))

    def to_json(self, path: str | Path) -> Path:
        """Write everything, so that :meth:`from_json` gives the report back.

        Args:
            path: of the file; one of that name is replaced.

        Returns:
            The path.

        Raises:
            DataError: if it cannot be written.
        """
        return _write(Path(path), json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False, ensure_ascii=False))

    @classmethod
    def from_json(cls, path: str | Path) -> AuditReport:
        """Read a report.

        Args:
            path: of a file that :meth:`to_json` wrote.

        Raises:
            DataError: if there is none, or it is none, or one of another version.
        """
        try:
            plain = parse_json(read_regular(Path(path)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "no JSON"
            raise DataError(got=f"{path} ({reason})", needed="a report", fix="check the path") from None
        version = plain.pop("format", None) if isinstance(plain, dict) else None
        if version != FORMAT:
            raise DataError(
                got=f"{path}, a report of format {version!r}" if version else f"{path}, which is no report",
                needed=f"format {FORMAT}",
                fix="audit again with this version",
            )
        try:
            report = typed(cls, plain)
            check_report(report.models, report.images, report.settings)
            return report
        except ValueError as error:
            raise DataError(got=f"{path}, of which a part is missing or odd ({error})", needed="a whole report",
                            fix="audit again") from None  # fmt: skip


def _write(path: Path, text: str) -> Path:
    from attribguard.whole_files import write_files

    try:
        write_files(path.parent, {path.name: text.encode()})
    except OSError as error:
        raise DataError(
            got=f"{path}, which cannot be written ({error.strerror})",
            needed="a place to write",
            fix="give another path",
        ) from None
    return path
