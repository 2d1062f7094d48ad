"""The file of finished trainings: JSON lines, appended to, read again after an interruption."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from attribguard.errors import DataError
from attribguard.plain_data import parse_json, read_regular, typed
from attribguard.reproduce.jobs import Job, Record
from attribguard.reproduce.recipe import Outcome

__all__ = ["append", "make_record", "read"]

_KINDS: dict[str, Any] = {
    "row": str, "final": bool, "seed": int, "settings": dict[str, Any], "metrics": dict[str, float | None],
    "curves": dict[str, list[float | None]], "seconds": float, "machine": dict[str, Any], "versions": dict[str, str],
}  # fmt: skip
_DIGITS = 6


def make_record(
    job: Job, outcome: Outcome, seconds: float, machine: dict[str, Any], versions: dict[str, str]
) -> Record:
    """A finished training as it is written.

    Args:
        job: what was trained.
        outcome: what it gave; a figure that is not finite becomes ``None``, which JSON can hold.
        seconds: how long it took.
        machine: on which.
        versions: of the software.
    """
    maps = {name: [[_finite(value) for value in line] for line in lines] for name, lines in outcome.maps.items()}
    return {
        "row": job.row,
        "final": job.final,
        "seed": job.seed,
        "settings": dict(job.settings),
        "metrics": {name: _finite(value) for name, value in outcome.metrics.items()},
        "curves": {name: [_finite(value) for value in values] for name, values in outcome.curves.items()},
        **({"maps": maps} if maps else {}),
        "seconds": round(seconds, 1),
        "machine": machine,
        "versions": versions,
    }


def append(path: Path, record: Record) -> None:
    """Write one record behind the others, in one piece.

    Args:
        path: the file, made if need be.
        record: one training.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    with path.open("ab") as file:
        file.write(line.encode())


def read(path: Path) -> list[Record]:
    """The records of a file; none if there is no file.

    Args:
        path: of JSON lines.

    Raises:
        DataError: if a line is no record.
    """
    try:
        content = read_regular(path) if path.exists() else b""
    except OSError as error:
        raise DataError(
            got=f"{path}, which cannot be read ({error.strerror})", needed="a file", fix="write elsewhere"
        ) from error
    records = []
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n") if content else [], start=1):
        try:
            record = typed(dict[str, Any], parse_json(line))
            if "maps" in record:
                typed(dict[str, list[list[float | None]]], record["maps"])
            records.append(record | {name: typed(kind, record.get(name)) for name, kind in _KINDS.items()})
        except ValueError as error:
            raise DataError(
                got=f"line {number} of {path}, which is no finished training ({error})",
                needed="a file that this command wrote",
                fix="remove the line, or write elsewhere",
            ) from error
    return records


def _finite(value: float) -> float | None:
    return round(float(value), _DIGITS) if math.isfinite(value) else None
