"""Writing files: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from attribguard.errors import DataError

__all__ = ["check_writable", "write_file", "write_files"]


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


def write_file(path: Path, *parts: bytes | memoryview) -> None:
    """Write one file, in one step in place of an earlier one. A process that is killed meanwhile leaves a hidden file.

    Args:
        path: the file, in a folder that exists.
        *parts: its content, one after the other.

    Raises:
        OSError: if the system does; a file that was there is then as before.
    """
    # Always the same name, so that what a killed process left is taken up by the next and does not pile up.
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("wb") as file:
        file.writelines(parts)
    os.replace(aside, path)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made if need be. Interrupted at any point, it leaves no half file.

    Args:
        folder: where to.
        contents: file name to content; files of these names are replaced.

    Raises:
        OSError: if the system does; files that were there are then as before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as staging:
        for name, content in contents.items():
            (Path(staging) / name).write_bytes(content)
        # Within one folder a rename is one step; all are complete before the first one shows.
        for name in contents:
            os.replace(Path(staging) / name, folder / name)
