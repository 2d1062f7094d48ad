"""Boxes as the NIH's list has them: the upper left corner, width and height."""

from __future__ import annotations

import math
from collections.abc import Mapping

from attribguard.data.pictures.picture_set import Box, PictureRow
from attribguard.errors import DataError

__all__ = ["BOX_COLUMNS", "read_box", "with_box"]

BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")
"""The names of a box's columns; the commas within the brackets part them."""

_SLACK = 1e-3  # pixels; the corners come with seven digits or more
_FIX = "mend the table of boxes"


def read_box(cells: Mapping[str, str]) -> Box:
    """The corners of a box.

    Args:
        cells: of a line, by column.

    Raises:
        DataError: if they hold no box.
    """
    values = [cells[column] for column in BOX_COLUMNS]
    try:
        x, y, width, height = map(float, values)
    except ValueError:
        x = y = width = height = math.nan
    if not all(map(math.isfinite, (x, y, width, height))) or width <= 0 or height <= 0:
        needed = "four finite numbers x, y, w, h, with w and h above 0"
        raise DataError(got=f"the box {', '.join(values)}", needed=needed, fix=_FIX)
    return x, y, x + width, y + height


def with_box(row: PictureRow, box: Box, kind: int) -> PictureRow:
    """A picture with one box more.

    Args:
        row: the picture.
        box: in its pixels.
        kind: the box's class.

    Raises:
        DataError: if the box reaches outside of the picture.
    """
    _, height, width = row.header
    x0, y0, x1, y1 = box
    if x0 < -_SLACK or y0 < -_SLACK or x1 > width + _SLACK or y1 > height + _SLACK:
        got = f"the box from {x0:g}, {y0:g} to {x1:g}, {y1:g} in {row.file} of {width} x {height} pixels"
        raise DataError(got=got, needed="boxes within the picture", fix=_FIX)
    return row._replace(boxes=(*row.boxes, box), box_classes=(*row.box_classes, kind))
