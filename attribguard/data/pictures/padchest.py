"""PadChest, the chest X-rays of a hospital in Alicante, as 16-bit PNG files with a list of labels each."""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attribguard.data.files.paths import given_path
from attribguard.data.files.picture_index import PictureIndex
from attribguard.data.files.refusals import OnError, Refusals
from attribguard.data.files.tables import read_table
from attribguard.data.pictures.picture_set import PictureRow, PictureSet
from attribguard.data.sizes import Size
from attribguard.errors import DataError

__all__ = ["PadChest"]

_COLUMNS = ("ImageID", "ImageDir", "PatientID", "Projection", "Labels")
_LONGEST = 10_000  # characters of a list of labels


class _Line(NamedTuple):
    number: int
    place: str
    patient: str
    labels: frozenset[str]


class PadChest(PictureSet):
    r"""The data set PadChest in the form in which it is given out, or a part of its pictures.

    Pictures lie in the folders that the column ``ImageDir`` names (``0/``, ``1/`` and so on), or where there is no
    such folder, in ``folder`` itself. Their 16 bits are scaled by 65,535 to [0, 1].

    Source: Bustos et al., *PadChest*, Medical Image Analysis 2020. Nothing is downloaded.

    Args:
        folder: of the pictures.
        csv: the table, ``PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv``, unpacked: a name in the folder, or an
            absolute path.
        findings: which labels make the targets, in this order; by default all of the table, by the alphabet, those of
            pictures in other projections included.
        projections: of the column ``Projection``; pictures in others are not read. ``None`` takes all.
        size: of the items in pixels, one number for squares or (H, W); by default that of the files, which must agree,
            as they do not in the whole set.
        on_error: ``"raise"``, or ``"skip"``: what is wrong is left out and listed in ``skipped``.
        cache: a folder in which sizes of pictures are kept between runs; by default none.

    Attributes:
        labels: the findings.
        targets: (N, K) float32, 1 where a picture has the label.
        groups: the patient of each item.
        files: the file of each item.
        skipped: (file, reason) of what was left out.

    Raises:
        DataError: if the table is missing or has not its columns, no picture with a label to learn is left, or nothing
            in the table has one of ``findings``; or, with ``on_error="raise"``, if a picture is missing, broken or in
            the table twice, or a line has no patient or no list of labels. Some lines of the real table have none.
        RangeError: if an option is none of those above.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("I;16", (6, 4)).save(f"{folder}/1.png")
        ...     _ = Path(folder, "table.csv").write_text(
        ...         "ImageID,ImageDir,PatientID,Projection,Labels\n"
        ...         '''1.png,0,839,PA,"['emphysema', 'scoliosis']"\n'''
        ...     )
        ...     item = PadChest(folder, "table.csv", ["emphysema"])[0]
        >>> item["image"].shape, item["target"], item["group"]
        (torch.Size([1, 4, 6]), tensor([1.]), '839')
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        csv: str | os.PathLike[str],
        findings: Sequence[str] | None = None,
        *,
        projections: Sequence[str] | None = ("PA",),
        size: Size = None,
        on_error: OnError = "raise",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        root, refusals = Path(folder), Refusals(on_error)
        table = given_path(root, csv)
        with PictureIndex(root, cache) as index:
            lines, known = _read_lines(root, table, projections, refusals)
            names = sorted(known) if findings is None else list(findings)
            if unknown := set(names) - known:
                raise DataError(
                    got=f"the finding {min(unknown)!r}, which no line of {table} has",
                    needed=f"labels of the table, such as {', '.join(sorted(known)[:10])}",
                    fix="check its spelling: labels are in lower case",
                )
            rows = list[PictureRow]()
            for line in lines:
                with refusals.at(table, line.number, line.place):
                    target = tuple(float(name in line.labels) for name in names)
                    rows.append(PictureRow(line.place, index[line.place], target, line.patient))
        super().__init__(root, rows, refusals, names, size=size, channels=1)


def _read_lines(
    root: Path, table: Path, projections: Sequence[str] | None, refusals: Refusals
) -> tuple[list[_Line], set[str]]:
    """The lines in the wanted projections, and the labels of all lines."""
    folders = {entry.name for entry in os.scandir(root) if entry.is_dir()}
    lines, first, known = list[_Line](), dict[str, int](), set[str]()
    for number, cells in read_table(table, _COLUMNS, refusals):
        name = cells["ImageID"]
        with refusals.at(table, number, name):
            if first.setdefault(name, number) != number:
                got = f"{name} again, first in line {first[name]}"
                raise DataError(got=got, needed="each picture once", fix="remove one of the lines")
            labels = _parse_labels(cells["Labels"])
            if not cells["PatientID"]:
                raise DataError(got=f"{name} without a patient", needed="a PatientID", fix="mend the table")
            known |= labels
            if projections is None or cells["Projection"] in projections:
                place = f"{cells['ImageDir']}/{name}" if cells["ImageDir"] in folders else name
                lines.append(_Line(number, place, cells["PatientID"], labels))
    return lines, known


def _parse_labels(text: str) -> frozenset[str]:
    """A list of labels as Python writes it. Only literals are read, nothing is run; empty labels do not count."""
    try:
        labels = ast.literal_eval(text) if len(text) <= _LONGEST else None
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DataError(
            got=f"{text[:100]!r} for labels", needed="a list such as ['normal']", fix="mend the line, or skip it"
        )
    return frozenset(label.strip() for label in labels) - {""}
