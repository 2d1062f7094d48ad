"""The file of finished trainings: JSON lines, appended to, read again after an interruption."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from attribguard.errors import DataError
from attribguard.reproduce.jobs import Job, Record
from attribguard.reproduce.recipe import Outcome

__all__ = ["append", "make_record", "read"]

_KEYS = {"row", "final", "seed", "settings", "metrics", "curves", "seconds", "machine", "versions"}
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
    records = []
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not record.keys() >= _KEYS:
            raise DataError(
                got=f"line {number} of {path}, which is no finished training",
                needed="a file that this command wrote",
                fix="remove the line, or write elsewhere",
            )
        records.append(record)
    return records


def _finite(value: float) -> float | None:
    return round(float(value), _DIGITS) if math.isfinite(value) else None
