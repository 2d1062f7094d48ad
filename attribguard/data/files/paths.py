"""Names of files that come out of a table or a file, which may not be trusted: they stay inside their folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from attribguard.errors import DataError

__all__ = ["NamesInFolder", "given_path", "inside_folder"]


def inside_folder(folder: str | os.PathLike[str], name: str) -> Path:
    r"""The path of a file in a folder, from a name that may have been written to lead out of it.

    Nothing is opened, and the file need not exist. The folder itself may be a link or lie behind one.

    Args:
        folder: where the file must lie.
        name: of the file, relative to the folder, with ``/`` between folders.

    Returns:
        The absolute path, all links followed.

    Raises:
        DataError: if the name is empty, absolute, has a ``..`` or a ``\`` in it, or leads out of the folder by a link.

    Example:
        >>> inside_folder("scans", "masks/0001.png").relative_to(Path("scans").resolve()).as_posix()
        'masks/0001.png'
        >>> inside_folder("scans", "../secrets.png")
        Traceback (most recent call last):
            ...
        attribguard.errors.DataError: got the file name '../secrets.png', which is no name in the folder scans; ...
    """
    root = Path(folder)
    _check_name(root, name)
    try:
        base = root.resolve()
        path = (base / name).resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()  # refuses a name that is too long for the system, whatever is asked of the path later
    except (OSError, RuntimeError) as error:  # a circle of links, which is the one or the other by version of Python
        raise _refused(root, name, "leads nowhere within the folder") from error
    if path == base or not path.is_relative_to(base):
        raise _refused(root, name, "leads out of the folder")
    return path


class NamesInFolder:
    """``inside_folder`` for thousands of names at once: the links on the way to each folder are followed only once.

    Args:
        folder: where the files must lie.

    Example:
        >>> NamesInFolder("scans").path("masks/0001.png") == inside_folder("scans", "masks/0001.png")
        True
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._parents = {"": self.folder.resolve()}

    def path(self, name: str) -> Path:
        """The path of a file in the folder.

        Args:
            name: of the file, as in ``inside_folder``.

        Returns:
            The absolute path, all links followed.

        Raises:
            DataError: as ``inside_folder``.
        """
        _check_name(self.folder, name)
        parent, _, last = name.rpartition("/")
        if parent not in self._parents:
            self._parents[parent] = inside_folder(self.folder, parent)
        path = self._parents[parent] / last
        try:
            link = path.is_symlink()
        except OSError:
            link = True  # what is wrong with the name, inside_folder says
        return inside_folder(self.folder, name) if last == "." or link else path


def given_path(folder: str | os.PathLike[str], name: str | os.PathLike[str]) -> Path:
    """The path that a user gives: an absolute one as it is, a relative one inside the folder.

    Args:
        folder: of the data set.
        name: of a table or list.

    Returns:
        The path; the file need not exist.

    Raises:
        DataError: if a relative name leads out of the folder.

    Example:
        >>> given_path("scans", Path("table.csv").absolute()) == Path("table.csv").absolute()
        True
    """
    return Path(name) if Path(name).is_absolute() else inside_folder(folder, os.fspath(name))


def _check_name(folder: Path, name: str) -> None:
    # On Windows "\" parts folders and "c:" is a drive: refused everywhere, so that a table reads alike on all systems.
    parts = name.split("/")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON can hold it
        parts = [""]
    if not name.strip() or "\0" in name or "\\" in name or name[1:2] == ":" or "" in parts or ".." in parts:
        raise _refused(folder, name, "is no name in the folder")


def _refused(folder: Path, name: str, why: str) -> DataError:
    return DataError(
        got=f"the file name {name[:300]!r}, which {why} {folder}",
        needed="a relative name without '..', '\\' or links to elsewhere",
        fix="move the file into the folder and name it from there",
    )
