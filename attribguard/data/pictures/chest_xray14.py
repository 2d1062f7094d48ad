"""ChestX-ray14, the NIH's chest X-rays: 14 findings, and boxes for some of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from attribguard.data.files.paths import given_path, inside_folder
from attribguard.data.files.picture_index import PictureIndex, list_files
from attribguard.data.files.refusals import OnError, Refusals
from attribguard.data.files.tables import read_list, read_table
from attribguard.data.pictures.boxes import BOX_COLUMNS, read_box, with_box
from attribguard.data.pictures.picture_set import PictureRow, PictureSet
from attribguard.data.sizes import Size
from attribguard.errors import DataError

__all__ = ["CHEST_FINDINGS", "ChestXray14"]

CHEST_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""The findings of ChestX-ray14 in the order of its targets, which is that of the paper's later edition."""

_NONE = "No Finding"
_TABLES = "Data_Entry_2017*.csv"
_LISTS = ("train_val_list.txt", "test_list.txt")
_IMAGE, _FINDINGS, _PATIENT, _FINDING = "Image Index", "Finding Labels", "Patient ID", "Finding Label"
_FIX = "mend the table of boxes"


class _Entry(NamedTuple):
    number: int
    findings: str
    patient: str


class ChestXray14(PictureSet):
    r"""The data set ChestX-ray14 in the form in which the NIH gives it out, or a part of its pictures.

    The folder holds ``Data_Entry_2017.csv`` (or ``Data_Entry_2017_v2020.csv``), the lists ``train_val_list.txt`` and
    ``test_list.txt``, and pictures in ``images/`` or ``images_001/images/`` to ``images_012/images/``. Those that
    came as RGBA are made gray like the rest.

    Items have ``target`` (14,) float32 with 1 for each finding, ``boxes`` and ``box_classes`` (-1 for those that only
    fill up the batch), and one channel. A picture without boxes may have the finding all the same: only about a
    thousand were given boxes. "Infiltrate", as the list of boxes calls it, is Infiltration.

    Source: Wang et al., *ChestX-ray8*, CVPR 2017. Nothing is downloaded.

    Args:
        folder: of the data set.
        split_list: the list of pictures, ``"train_val_list.txt"`` or ``"test_list.txt"`` or another: a name in the
            folder, or an absolute path, as with all tables. With ``None`` all pictures of the table.
        boxes: the table of boxes, or ``None``, and items have no boxes.
        size: of the items in pixels, one number for squares or (H, W), to which boxes are scaled; by default that of
            the files (1024).
        table: the table of findings; by default the only ``Data_Entry_2017*.csv`` there is.
        on_error: ``"raise"``, or ``"skip"``: what is wrong is left out and listed in ``skipped``.
        cache: a folder in which sizes of pictures are kept between runs; by default none.

    Attributes:
        labels: the 14 findings.
        targets: (N, 14) float32.
        groups: the patient of each item.
        files: the file of each item.
        boxed: (N,) bool, which items have a box or more.
        skipped: (file, reason) of what was left out.

    Raises:
        DataError: if a table or list is missing or has not its columns, or no picture is left; or, with
            ``on_error="raise"``, if a picture is missing, broken or there twice, a line is there twice or names an
            unknown finding, a box is no box within its picture, or a patient is on both of the data set's lists.
        RangeError: if an option is none of those above.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "images").mkdir()
        ...     Image.new("L", (8, 8)).save(f"{folder}/images/00000001_000.png")
        ...     _ = Path(folder, "Data_Entry_2017.csv").write_text(
        ...         f"{header}\n00000001_000.png,Cardiomegaly|Mass,0,1,058Y,M,PA,\n"
        ...     )
        ...     item = ChestXray14(folder, None, boxes=None)[0]
        >>> item["target"].nonzero().flatten(), item["group"], item["image"].shape
        (tensor([1, 4]), '1', torch.Size([1, 8, 8]))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split_list: str | None,
        boxes: str | None = "BBox_List_2017.csv",
        *,
        size: Size = None,
        table: str | None = None,
        on_error: OnError = "raise",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        root, refusals = Path(folder), Refusals(on_error)
        entries = given_path(root, _find_table(root) if table is None else table)
        lines, places = _read_entries(entries, refusals), _find_pictures(root, refusals)
        names = lines if split_list is None else _read_split(root, split_list, lines, refusals)
        rows = dict[str, PictureRow]()
        with PictureIndex(root, cache) as index:
            for name in names:
                with refusals.at(entries, lines[name].number, name):
                    file = places.get(name, f"images/{name}")
                    rows[name] = PictureRow(file, index[file], _target(lines[name].findings), lines[name].patient)
        for name in sorted(places.keys() - lines.keys() - {name for name, _ in refusals.skipped}):
            needed, fix = "a line for every picture", "move the picture elsewhere"
            refusals.refuse(name, DataError(got=f"{places[name]}, which is not in {entries}", needed=needed, fix=fix))
        if boxes is not None:
            _add_boxes(given_path(root, boxes), rows, lines, refusals)
        found = list(rows.values())
        super().__init__(root, found, refusals, CHEST_FINDINGS, size=size, channels=1, boxes=boxes is not None)


def _find_table(root: Path) -> str:
    tables = sorted(root.glob(_TABLES))
    if len(tables) != 1:
        found = " and ".join(table.name for table in tables) or "none"
        raise DataError(got=f"{root} with {found}", needed=f"one table {_TABLES}", fix="name it: table=")
    return tables[0].name


def _find_pictures(root: Path, refusals: Refusals) -> dict[str, str]:
    """Where each picture lies, by its name."""
    parts = [f"{part.name}/images" for part in sorted(root.glob("images_*")) if (part / "images").is_dir()]
    places = dict[str, str]()
    for part in ["images", *parts]:
        place = inside_folder(root, part)
        for name in list_files(place) if place.is_dir() else ():
            if places.setdefault(name, f"{part}/{name}") != f"{part}/{name}":
                got, fix = f"{name} in {part} and as {places[name]}", "remove one of them"
                refusals.refuse(name, DataError(got=f"{got} of {root}", needed="each picture once", fix=fix))
    return places


def _read_entries(table: Path, refusals: Refusals) -> dict[str, _Entry]:
    lines = dict[str, _Entry]()
    for number, cells in read_table(table, (_IMAGE, _FINDINGS, _PATIENT), refusals):
        name = cells[_IMAGE]
        with refusals.at(table, number, name):
            if name in lines:
                got = f"{name} again, first in line {lines[name].number}"
                raise DataError(got=got, needed="each picture once", fix="remove one of the lines")
            if not cells[_PATIENT]:
                raise DataError(got=f"{name} without a patient", needed="a patient's number", fix="mend the table")
            lines[name] = _Entry(number, cells[_FINDINGS], cells[_PATIENT])
    return lines


def _read_split(root: Path, name: str, lines: dict[str, _Entry], refusals: Refusals) -> list[str]:
    """The pictures on a list, whose patients must not be on the other one of the data set's two."""
    path = given_path(root, name)
    others = [given_path(root, other) for other in _LISTS if name in _LISTS and other != name]
    others = [other for other in others if other.is_file()]
    elsewhere = {lines[picture].patient for other in others for picture in read_list(other) if picture in lines}
    pictures = list[str]()
    for picture, number in read_list(path).items():
        with refusals.at(path, number, picture):
            if picture not in lines:
                raise DataError(
                    got=f"{picture}, which is not in the table", needed="pictures of it", fix="mend the list"
                )
            if lines[picture].patient in elsewhere:
                got = f"{picture} of patient {lines[picture].patient}, who is on {others[0].name} too"
                raise DataError(got=got, needed="each patient on one list", fix="take the patient off one of them")
            pictures.append(picture)
    return pictures


def _target(findings: str) -> tuple[float, ...]:
    names = [] if findings == _NONE else findings.split("|")
    for name in names:
        _finding(name)
    return tuple(float(finding in names) for finding in CHEST_FINDINGS)


def _finding(name: str) -> int:
    if name not in CHEST_FINDINGS:
        needed = f"{', '.join(CHEST_FINDINGS)}, joined by '|', or {_NONE!r} alone"
        raise DataError(got=f"the unknown finding {name!r}", needed=needed, fix="mend the table")
    return CHEST_FINDINGS.index(name)


def _add_boxes(table: Path, rows: dict[str, PictureRow], lines: dict[str, _Entry], refusals: Refusals) -> None:
    for number, cells in read_table(table, (_IMAGE, _FINDING, *BOX_COLUMNS), refusals):
        name = cells[_IMAGE]
        with refusals.at(table, number, name):
            if name not in lines:
                raise DataError(
                    got=f"a box in {name}, which is not in the table of findings", needed="one that is", fix=_FIX
                )
            finding = _finding("Infiltration" if cells[_FINDING] == "Infiltrate" else cells[_FINDING])
            box = read_box(cells)
            if (row := rows.get(name)) is not None:  # else it is on the other list, or was refused
                rows[name] = with_box(row, box, finding)
