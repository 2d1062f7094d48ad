"""A folder of pictures with their masks and one table: the plainest form of a user's own data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from attribguard.data.files.paths import given_path, inside_folder
from attribguard.data.files.picture_file import PictureHeader
from attribguard.data.files.picture_index import PictureIndex, list_files
from attribguard.data.files.refusals import OnError, Refusals
from attribguard.data.files.tables import read_table
from attribguard.data.pictures.boxes import BOX_COLUMNS, read_box, with_box
from attribguard.data.pictures.picture_set import Channels, PictureRow, PictureSet
from attribguard.data.sizes import Size
from attribguard.errors import DataError, check_choice

__all__ = ["ImageFolderWithMasks"]

_TABLE, _IMAGES, _MASKS = "labels.csv", "images", "masks"
_BOX_FILE = "Image Index"
_NO_LABEL = ("", "nan", "none", "null")


class _Line(NamedTuple):
    number: int
    file: str
    label: str
    group: str
    split: str


class ImageFolderWithMasks(PictureSet):
    r"""Pictures in ``images/``, masks of the same names in ``masks/``, and classes in ``labels.csv``.

    The table has the columns ``file`` and ``label``, and may have ``group`` (the patient) and ``split``. Without
    groups each picture is a group of its own. The mask of ``images/a.jpg`` is ``masks/a.jpg`` or ``masks/a.png``; it
    holds 0 where the picture is irrelevant and one other value elsewhere.

    All is checked when the data set is made, by the files' headers and without decoding a pixel: each error names the
    file and the table's line. With ``on_error="skip"`` what is wrong is left out and listed in ``skipped``. Damage in
    the pixels themselves shows when an item is read, and is then an error in either case.

    Args:
        folder: with the table and the two folders.
        split: only the lines with this in the column ``split``; all by default.
        classes: the labels in the order of their numbers; by default all labels of the whole table, whatever the
            split, as numbers if all are whole numbers, else by the alphabet.
        masks: ``"every"`` picture has one; only ``"some"`` have, and the others are not annotated; or ``"none"``, and
            items have no mask.
        boxes: a table of boxes in the folder, in the form of ChestX-ray14: "Image Index" is the file, and which finding
            a box shows is not read. Items then have ``boxes`` and ``box_classes`` (0, and -1 for those that only fill
            up). By default none.
        size: of the items in pixels, one number for squares or (H, W); by default that of the files, which must agree.
            Masks are relevant where at least half of the new pixel was.
        channels: 1, 3, or by default those of the files, which must agree.
        on_error: ``"raise"`` or ``"skip"``.
        cache: a folder in which sizes of pictures are kept between runs; by default none.

    Attributes:
        labels: names of the classes, in the order of the targets.
        targets: (N,) int64.
        groups: the patient of each item.
        files: the file of each item, ``images/...``.
        skipped: (file, reason) of what was left out.

    Raises:
        DataError: if the table is missing or has not its columns, no line is left, pictures differ in size or channels
            and none were given; or, with ``on_error="raise"``, if a picture or mask is missing, broken, outside of the
            folder or of another size than the other; if a file is in the table twice or not at all, a label is missing
            or unknown, or a group is in two splits.
        RangeError: if an option is none of those above.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name, size in (("images", (4, 2)), ("masks", (4, 2))):
        ...         Path(folder, name).mkdir()
        ...         Image.new("L", size, 255).save(f"{folder}/{name}/a.png")
        ...     _ = Path(folder, "labels.csv").write_text("file,label,group\na.png,sick,patient 7\n")
        ...     data = ImageFolderWithMasks(folder, classes=["healthy", "sick"])
        ...     item = data[0]
        >>> item["image"].shape, item["target"], item["mask"].sum(), item["group"], item["file"]
        (torch.Size([1, 2, 4]), tensor(1), tensor(8.), 'patient 7', 'images/a.png')
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        split: str | None = None,
        *,
        classes: Sequence[str] | None = None,
        masks: Literal["every", "some", "none"] = "every",
        boxes: str | None = None,
        size: Size = None,
        channels: Channels = None,
        on_error: OnError = "raise",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        check_choice("masks", masks, ("every", "some", "none"))
        root, refusals = Path(folder), Refusals(on_error)
        table = inside_folder(root, _TABLE)
        lines = _read_lines(table, refusals, split)
        names = _class_names(lines, table) if classes is None else [str(name) for name in classes]
        places = {kind: inside_folder(root, kind) for kind in (_IMAGES, _MASKS)}
        listed = {kind: set(list_files(place)) if place.is_dir() else set() for kind, place in places.items()}
        rows = list[PictureRow]()
        with PictureIndex(root, cache) as index:
            for line in lines:
                if split is None or line.split == split:
                    with refusals.at(table, line.number, line.file):
                        target = _target(line.label, names)
                        header = index[f"{_IMAGES}/{line.file}"]
                        mask = None if masks == "none" else _find_mask(line.file, listed[_IMAGES], listed[_MASKS])
                        _check_mask(root, line.file, header, mask, index, needed=masks == "every")
                        rows.append(PictureRow(f"{_IMAGES}/{line.file}", header, target, line.group or line.file, mask))
        _refuse_unlisted(table, lines, listed[_IMAGES], refusals)
        if boxes is not None:
            rows = _with_boxes(given_path(root, boxes), rows, {line.file for line in lines}, refusals)
        super().__init__(
            root, rows, refusals, names, size=size, channels=channels, masks=masks != "none", boxes=boxes is not None
        )


def _with_boxes(table: Path, rows: list[PictureRow], known: set[str], refusals: Refusals) -> list[PictureRow]:
    found = {row.file.removeprefix(f"{_IMAGES}/"): row for row in rows}
    for number, cells in read_table(table, (_BOX_FILE, *BOX_COLUMNS), refusals):
        name = cells[_BOX_FILE]
        with refusals.at(table, number, name):
            if name not in known:
                raise DataError(got=f"a box in {name!r}, which is not in {_TABLE}", needed="one that is", fix="mend it")
            box = read_box(cells)
            if name in found:  # else it is in another split, or was refused
                found[name] = with_box(found[name], box, 0)
    return list(found.values())


def _read_lines(table: Path, refusals: Refusals, split: str | None) -> list[_Line]:
    """All lines of the table, of all splits, without those that contradict an earlier one."""
    lines, first, homes = list[_Line](), dict[str, int](), dict[str, _Line]()
    columns = ["file", "label"] if split is None else ["file", "label", "split"]
    for number, cells in read_table(table, columns, refusals):
        line = _Line(number, cells["file"], cells["label"], cells.get("group", ""), cells.get("split", ""))
        with refusals.at(table, number, line.file):
            if first.setdefault(line.file, number) != number:
                raise DataError(
                    got=f"{line.file!r} again, first in line {first[line.file]}",
                    needed="each file once",
                    fix="remove one of the lines",
                )
            home = homes.setdefault(line.group, line)
            if line.group and home.split != line.split:
                raise DataError(
                    got=f"group {line.group!r} in split {line.split!r}, and in {home.split!r} in line {home.number}",
                    needed="each group in one split",
                    fix="split by group: attribguard.data.split_by_group",
                )
            lines.append(line)
    return lines


def _class_names(lines: list[_Line], table: Path) -> list[str]:
    found = {line.label for line in lines if line.label.lower() not in _NO_LABEL}
    if all(name.isascii() and name.isdigit() for name in found):
        return sorted(found, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))  # int() has a limit
    return sorted(found)


def _target(label: str, names: list[str]) -> int:
    if label not in names:
        what = "no label" if label.lower() in _NO_LABEL else f"the unknown label {label!r}"
        raise DataError(got=what, needed=f"one of {', '.join(names)[:300]}", fix="mend the table, or give classes=")
    return names.index(label)


def _find_mask(file: str, images: set[str], masks: set[str]) -> str | None:
    other = PurePosixPath(file).with_suffix(".png").as_posix()
    # Where a.jpg and a.png are both pictures, the mask a.png belongs to the latter.
    name = file if file in masks else other if other in masks and other not in images else None
    return None if name is None else f"{_MASKS}/{name}"


def _check_mask(
    root: Path, file: str, header: PictureHeader, mask: str | None, index: PictureIndex, needed: bool
) -> None:
    if mask is None:
        if needed:
            raise DataError(
                got=f"{file} without a mask in {root / _MASKS}",
                needed="a mask for every picture",
                fix="add it, or give masks='some' where not all are annotated, or masks='none'",
            )
    elif index[mask][1:] != header[1:]:
        raise DataError(
            got=f"the mask {root / mask} of {index[mask][1:]} pixels (H, W) for a picture of {header[1:]}",
            needed="masks of the same size as the picture",
            fix="resize the mask",
        )


def _refuse_unlisted(table: Path, lines: list[_Line], files: set[str], refusals: Refusals) -> None:
    known = {line.file for line in lines} | {file.removeprefix(f"{_IMAGES}/") for file, _ in refusals.skipped}
    for file in sorted(files - known):
        needed, fix = "a line for every picture", "add its line, or move it elsewhere"
        refusals.refuse(file, DataError(got=f"{_IMAGES}/{file}, which is not in {table}", needed=needed, fix=fix))
