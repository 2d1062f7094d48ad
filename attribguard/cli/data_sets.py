"""The images that a command audits: a folder, or a built-in set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attribguard.data import Crosses, HematomaPhantom, ImageFolderWithMasks, LesionPhantom, OrganPhantom, SitesPhantom
from attribguard.errors import DataError

__all__ = ["BUILT_IN", "load_data"]

_IMAGES = 400
_BOXES = "BBox_List_2017.csv"

BUILT_IN: dict[str, tuple[Callable[[int, int, int], Any], tuple[str, ...]]] = {
    "crosses": (lambda n, size, seed: Crosses("test", n, seed=seed), ("two crosses", "one cross")),
    "hematomas": (lambda n, size, seed: HematomaPhantom("test", n, size, seed), ("none", "island")),
    "hematomas-unseen": (lambda n, size, seed: HematomaPhantom("unseen", n, size, seed), ("none", "island")),
    "organs": (lambda n, size, seed: OrganPhantom("test", n, size, seed), ("none", "pancreas")),
    "sites": (lambda n, size, seed: SitesPhantom("test", n, size, seed), ("healthy", "unhealthy")),
    "lesions": (lambda n, size, seed: LesionPhantom("test", n, size, seed, binary=True), ("healthy", "unhealthy")),
}
"""Sets that are drawn: name to what draws n images of a size from a seed, and the names of the classes."""


def load_data(
    name: str, split: str | None, size: int | None, images: int | None, seed: int
) -> tuple[Any, Sequence[str], int]:
    """Read or draw images.

    Args:
        name: a folder as :class:`attribguard.data.ImageFolderWithMasks` reads it, whose ``masks`` may be missing and
            which may hold ``BBox_List_2017.csv``, boxes in the form of ChestX-ray14; or one of :data:`BUILT_IN`.
        split: of the folder's table.
        size: to which pictures are brought, in pixels; 64 for what is drawn.
        images: how many to draw.
        seed: of the draw.

    Returns:
        The data set, the names of the classes, and the number of channels.

    Raises:
        DataError: if there is neither, or the folder cannot be read.
    """
    if name in BUILT_IN and not Path(name).is_dir():
        draw, classes = BUILT_IN[name]
        data = draw(images or _IMAGES, size or 64, seed)
    elif (folder := Path(name)).is_dir():
        boxes = _BOXES if (folder / _BOXES).exists() else None
        masks: Any = "some" if (folder / "masks").is_dir() else "none"
        data = ImageFolderWithMasks(folder, split, masks=masks, boxes=boxes, size=size)
        classes = data.labels
    else:
        raise DataError(got=f"{name!r}", needed=f"a folder, or one of {', '.join(BUILT_IN)}", fix="check the path")
    item = data[0]
    return data, classes, len(item["image"] if isinstance(item, dict) else item[0])
