"""Which pictures a folder has, and the size of each, kept between runs if the user says where."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeGuard

from attribguard.data.files.paths import NamesInFolder
from attribguard.data.files.picture_file import PictureHeader, read_picture_header
from attribguard.errors import DataError

__all__ = ["PictureIndex", "file_stamp", "list_files"]

_FORM = "attribguard pictures 1"  # another form of the cache gets another name and is then read anew
_FIELDS = 5


class PictureIndex:
    """The headers of the pictures in a folder: each is read once, and again when its time or size changes.

    A cache is one JSON file a folder of pictures. What it says of a file holds as long as the file's size and time of
    last change stay the same; a cache that is damaged is made anew. Used as a context manager, the index is saved at
    the end, also after an error: what was read by then need not be read again.

    Args:
        folder: of the pictures.
        cache: the folder for the JSON files, made if need be; by default nothing is kept.

    Attributes:
        reads: how many headers were read from the pictures themselves.

    Raises:
        DataError: if ``folder`` is no folder.
    """

    def __init__(self, folder: Path, cache: str | os.PathLike[str] | None = None) -> None:
        if not folder.is_dir():
            raise DataError(got=f"{folder}, which is no folder", needed="a folder of pictures", fix="check the path")
        self.reads, self._names = 0, NamesInFolder(folder)
        name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]
        self._file = None if cache is None else Path(cache) / f"{name}.json"
        self._known: dict[str, object] = {} if self._file is None else _load(self._file)

    def __getitem__(self, name: str) -> PictureHeader:
        """The header of a picture, by its name relative to the folder; ``DataError`` as ``read_picture_header``."""
        path = self._names.path(name)
        try:
            stamp = file_stamp(path)
        except OSError:
            return read_picture_header(path)  # which has the words for it
        known = self._known.get(name)
        if _is_entry(known) and known[:2] == stamp:
            return PictureHeader(*known[2:])
        header = read_picture_header(path)
        self._known[name], self.reads = [*stamp, *header], self.reads + 1
        return header

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.save()

    def save(self) -> None:
        """Write the cache, if there is to be one and something is new.

        Raises:
            DataError: if it cannot be written.
        """
        if self._file is None or not self.reads:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Put in place in one step, so that another process never reads half of it.
            handle, new = tempfile.mkstemp(dir=self._file.parent, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"form": _FORM, "files": self._known}, file)
            os.replace(new, self._file)
        except OSError as error:
            raise DataError(
                got=f"the cache {self._file}, which cannot be written ({error.strerror})",
                needed="a folder that can be written to",
                fix="give another cache=, or none",
            ) from error


def file_stamp(path: Path) -> list[int]:
    """What changes when a file does: its time of last change in nanoseconds, and its size in bytes.

    Args:
        path: of the file.

    Raises:
        OSError: if there is none.
    """
    about = path.stat()
    return [about.st_mtime_ns, about.st_size]


def list_files(folder: Path) -> Iterator[str]:
    """All files in a folder and the folders in it, which are not entered where they are links.

    Args:
        folder: where to look.

    Yields:
        Names relative to the folder, with ``/`` between folders, in order; those that begin with a dot are left out.

    Raises:
        DataError: if a folder cannot be listed.
    """
    waiting = [("", True)]  # names, and whether each is a folder; the next one last
    while waiting:
        name, is_folder = waiting.pop()
        if not is_folder:
            yield name
            continue
        try:
            with os.scandir(folder / name) as entries:
                shown = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            got = f"{folder}, in which {name[:300] or 'nothing'!r} cannot be listed ({error.strerror})"
            raise DataError(got=got, needed="a folder that can be read", fix="mend it, or move it away") from error
        for entry in sorted(shown, key=lambda entry: entry.name, reverse=True):
            waiting.append((f"{name}/{entry.name}" if name else entry.name, entry.is_dir(follow_symlinks=False)))


def _is_entry(known: object) -> TypeGuard[list[int]]:
    return isinstance(known, list) and len(known) == _FIELDS and all(type(value) is int for value in known)


def _load(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text("utf-8"))
        files = content["files"] if content["form"] == _FORM else {}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return {}
    return files if isinstance(files, dict) else {}
