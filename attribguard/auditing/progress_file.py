"""The rows of images that are done, one JSON line each, so that an audit can be interrupted at any point."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import nn

from attribguard.auditing.coherence import check_row
from attribguard.auditing.rows import ImageRow
from attribguard.errors import DataError
from attribguard.plain_data import parse_json, read_regular, typed
from attribguard.probes.patch_swap.pair_records import Fingerprint
from attribguard.whole_files import cut_half_line

__all__ = ["ProgressFile"]


class ProgressFile:
    """Rows of an audit that may have been interrupted.

    The first line tells networks and options; a last line that was cut off is dropped.

    Args:
        path: the file, or ``None`` to keep nothing; its folder must exist.
        models: the networks by name, whose weights must be those of the earlier run.
        options: of the audit, likewise.

    Raises:
        DataError: if the file is another audit's, or cannot be read or written.
    """

    def __init__(self, path: Path | None, models: Mapping[str, nn.Module], options: Mapping[str, object]) -> None:
        self._path, self.rows = path, list[ImageRow]()
        if path is None:
            return
        keys = {name: Fingerprint(model, options).of([]) for name, model in models.items()}
        head = json.dumps({"audit": keys}, sort_keys=True).encode()
        try:
            content = read_regular(path) if path.exists() else b""
            *lines, torn = content.split(b"\n")
            if (lines or [torn])[0] != head[: None if lines else len(torn)]:
                raise ValueError("of another network, or with other options")
            rows = [typed(ImageRow, parse_json(line)) for line in lines[1:]]
            for row in rows:
                check_row(row, keys)
            if lines:
                cut_half_line(path)
            else:
                path.write_bytes(head + b"\n")
            self.rows = rows
        except (OSError, ValueError) as error:
            raise DataError(
                got=f"{path}, which is no audit to go on with ({error})",
                needed="the file of an earlier run of the same audit",
                fix="remove it, or name another",
            ) from None

    def add(self, rows: Iterable[ImageRow]) -> None:
        """Keep the next rows, in the order of the images.

        Args:
            rows: that follow the last one.
        """
        text = ""
        for row in rows:
            self.rows.append(row)
            text += json.dumps(row.plain(), ensure_ascii=False, allow_nan=False) + "\n"
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(text.encode())
