"""The headers of CT slices, kept between runs if the user says where."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from attribguard.data.files.picture_index import PictureIndex, file_stamp
from attribguard.data.medical.ct_slice import CtSlice

__all__ = ["SliceIndex"]

_TYPES = {
    "uid": str, "series": str, "patient": str, "number": int | None,
    "size": list, "spacing": list | None, "position": list | None, "orientation": list | None,
}  # fmt: skip


class SliceIndex(PictureIndex):
    """Keeps the headers of CT slices as :class:`~attribguard.data.files.picture_index.PictureIndex` those of pictures.

    The folder and the cache, the errors, and when a header is read anew are as there.
    """

    def known(self, file: str, path: Path) -> CtSlice | None:
        """The header of a slice, if it is kept and its file has not changed since.

        Args:
            file: name relative to the folder.
            path: the file.
        """
        kept = self._known.get(file)
        if not isinstance(kept, list) or len(kept) != 3 or kept[:2] != file_stamp(path):
            return None
        fields: Any = kept[2]
        if not isinstance(fields, dict) or fields.keys() != _TYPES.keys():
            return None
        if not all(isinstance(fields[name], kind) for name, kind in _TYPES.items()):
            return None
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        return CtSlice(file, **(fields | lists))

    def keep(self, path: Path, one: CtSlice) -> None:
        """Keep the header of a slice.

        Args:
            path: the file.
            one: its header, read from it.
        """
        fields: dict[str, Any] = asdict(one)
        self._known[fields.pop("file")] = [*file_stamp(path), fields]
        self.reads += 1
