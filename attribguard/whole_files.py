"""Files that are written whole or not at all, and files of lines of which the last may be half."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from attribguard.errors import DataError

__all__ = ["check_writable", "cut_half_line", "write_files"]


def check_writable(folder: Path, names: Iterable[str]) -> None:
    """Find out whether files can be written to a folder, leaving no trace; call it before time is spent on them.

    Args:
        folder: it, or the nearest folder above it that exists, is tried with a nameless file.
        names: of the files.

    Raises:
        DataError: if not, or if a folder of a file's name stands in the way.
    """
    for path in (folder / name for name in names):
        if path.is_dir():
            raise DataError(got=f"{path}, a folder", needed="its name for a file", fix="move it, or write elsewhere")
    nearest = folder.absolute()
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise DataError(
            got=f"{folder}, where nothing can be written ({error.strerror})",
            needed="a folder that exists or can be made",
            fix="give another folder",
        ) from error


def write_files(folder: Path, contents: Mapping[str, bytes | Iterable[bytes | memoryview]]) -> None:
    """Write files into a folder, which is made if need be. Interrupted at any point, it leaves no half file.

    A process that is killed meanwhile leaves hidden files, which the next writing takes over.

    Args:
        folder: where to.
        contents: file name to content, in one piece or several; files of these names are replaced.

    Raises:
        OSError: if the system does; files that were there are then as before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Always the same names, so that what killed processes left does not pile up.
    aside = {name: folder / f".{name}.writing" for name in contents}
    try:
        for name, content in contents.items():
            with aside[name].open("wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
        # Within one folder a rename is one step; all are complete before the first one shows.
        for name, path in aside.items():
            os.replace(path, folder / name)
    except BaseException:
        for path in aside.values():
            path.unlink(missing_ok=True)
        raise


def cut_half_line(path: Path) -> None:
    """Cut off a last line that an interruption left half written, and touch nothing else.

    Args:
        path: of a file of lines, if there is one.
    """
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)
