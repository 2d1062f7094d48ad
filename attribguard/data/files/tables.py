"""Tables in CSV files, line by line, and lists of file names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from attribguard.data.files.refusals import Refusals
from attribguard.errors import DataError
from attribguard.plain_data import check_regular

__all__ = ["read_list", "read_table"]


def read_table(path: Path, columns: Sequence[str], refusals: Refusals) -> Iterator[tuple[int, dict[str, str]]]:
    r"""Read a CSV file in UTF-8 whose first line names the columns. Lines are read one after the other.

    A line is refused if it has not as many cells as the first, apart from empty ones at the end: a comma too many
    would otherwise move all that follows into the next column.

    Args:
        path: the file.
        columns: names that must be in the first line.
        refusals: what to do with a line of another number of cells.

    Yields:
        The line's number, from 1, and its cells without white space around them, by the names of their columns.

    Raises:
        DataError: if the file is missing, no UTF-8 or no CSV, or a column is missing or there twice.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "labels.csv").write_text("file,label\na.png,cat\n")
        ...     list(read_table(Path(folder, "labels.csv"), ["label"], Refusals("raise")))
        [(2, {'file': 'a.png', 'label': 'cat'})]
    """
    number = 1
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = [name.strip() for name in next(lines, [])]
            while names and not names[-1]:
                names.pop()
            _check_names(path, names, columns)
            for cells in lines:
                number, width = lines.line_num, len(names)
                if not cells:
                    continue
                if len(cells) < width or any(cells[width:]):
                    with refusals.at(path, number, cells[0]):
                        raise DataError(
                            got=f"{len(cells)} cells", needed=f"{width}, as in the first line", fix="check its commas"
                        )
                    continue
                yield number, {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
                number += 1
    except FileNotFoundError as error:
        raise _broken(path, "which does not exist") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _broken(path, f"which cannot be read from line {number} on ({error})") from error


def read_list(path: Path) -> dict[str, int]:
    """Read a list of names, one a line; empty lines do not count.

    Args:
        path: the file, in UTF-8.

    Returns:
        The number of each name's line, from 1, by the names, in the file's order.

    Raises:
        DataError: if the file is missing or no UTF-8, or a name is there twice.
    """
    try:
        check_regular(path)
        lines = path.read_text("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise _broken(path, "which does not exist") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, f"which cannot be read ({error})") from error
    numbers = dict[str, int]()
    for number, name in enumerate(map(str.strip, lines), start=1):
        if name and numbers.setdefault(name, number) != number:
            raise DataError(
                got=f"{name!r} again (line {number} of {path}; first in line {numbers[name]})",
                needed="each name once",
                fix="remove one of the lines",
            )
    return numbers


def _check_names(path: Path, names: list[str], columns: Sequence[str]) -> None:
    if wrong := [name for name in columns if names.count(name) != 1]:
        raise DataError(
            got=f"{path}, whose first line has not the column {wrong[0]!r}, or has it twice: {', '.join(names)[:300]}",
            needed=f"the columns {', '.join(columns)}",
            fix="check that this is the right file, with its first line",
        )


def _broken(path: Path, why: str) -> DataError:
    return DataError(got=f"{path}, {why}", needed="a text file in UTF-8, as CSV if it is a table", fix="check the path")
