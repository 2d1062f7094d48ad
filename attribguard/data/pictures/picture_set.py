"""What the readers of folders of pictures share: rows that were checked, and items made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from attribguard.data.files.paths import inside_folder
from attribguard.data.files.picture_file import PictureHeader, read_mask, read_picture
from attribguard.data.files.refusals import Refusals
from attribguard.data.sizes import Size, as_size, check_alike, image_to_size, mask_to_size
from attribguard.errors import DataError, check_choice

__all__ = ["Box", "Channels", "PictureRow", "PictureSet"]

Box = tuple[float, float, float, float]
Channels = Literal[1, 3] | None
_GRAY = (0.299, 0.587, 0.114)  # the weights of ITU-R BT.601


class PictureRow(NamedTuple):
    """What is known of one picture before it is read.

    Attributes:
        file: relative to the data set's folder.
        header: channels, height and width in the file.
        target: a class, or one number (0 or 1) a label.
        group: the patient.
        mask: file of the mask, relative to the data set's folder; none if it has none.
        boxes: in pixels of the file.
        box_classes: of each box.
    """

    file: str
    header: PictureHeader
    target: int | tuple[float, ...]
    group: str
    mask: str | None = None
    boxes: tuple[Box, ...] = ()
    box_classes: tuple[int, ...] = ()


class PictureSet(Dataset[dict[str, Any]]):
    """Pictures in a folder, read when they are asked for. Base of the readers, which make the rows.

    Args:
        folder: in which all files lie.
        rows: one a picture, already checked.
        refusals: what was left out.
        labels: the names of the classes or labels.
        size: of the items, one number for squares or (H, W); by default that of the files, which must then agree.
        channels: 1, 3, or by default those of the files, which must then agree. Colours become gray by the weights
            of ITU-R BT.601, unless all three channels are equal.
        masks: whether items have a mask.
        boxes: whether items have boxes.

    Attributes:
        labels: names of the classes or labels, in the order of the targets.
        targets: (N,) int64 or (N, K) float32, of all items.
        groups: the patient of each item.
        files: the file of each item.
        boxed: (N,) bool, which items have a box or more.
        skipped: (file, reason) of what was left out with ``on_error="skip"``.

    Raises:
        DataError: if there is no row, or files differ in size or channels and none were given.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[PictureRow],
        refusals: Refusals,
        labels: Sequence[str],
        *,
        size: Size = None,
        channels: Channels = None,
        masks: bool = False,
        boxes: bool = False,
    ) -> None:
        check_choice("channels", channels, (None, 1, 3))
        size = as_size(size)
        if not rows:
            raise DataError(
                got=f"no picture of {folder} ({len(refusals.skipped)} were skipped)",
                needed="one picture or more",
                fix="check the tables, the split, and what was skipped and why",
            )
        if size is None:
            check_alike("pictures", [(row.file, row.header[1:]) for row in rows])
        if channels is None:
            every = [(row.file, row.header.channels) for row in rows]
            check_alike("pictures", every, "channels", "give channels=1 or channels=3")
        self.folder, self.labels, self.skipped = folder, tuple(labels), refusals.skipped
        self._rows, self._size, self._channels = list(rows), size, channels
        self._masks, self._boxes = masks, max(len(row.boxes) for row in rows) if boxes else None
        dtype = torch.int64 if isinstance(rows[0].target, int) else torch.float32
        self.targets = torch.tensor([row.target for row in rows], dtype=dtype)
        self.boxed = torch.tensor([len(row.boxes) > 0 for row in rows])
        self.groups, self.files = [row.group for row in rows], [row.file for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one item.

        Raises:
            DataError: if a file is damaged in its pixels, which cannot be known before, or changed meanwhile.
        """
        row = self._rows[index]
        image = read_picture(inside_folder(self.folder, row.file))
        _check_unchanged(tuple(image.shape), tuple(row.header), row.file)
        size = self._size or (row.header.height, row.header.width)
        item: dict[str, Any] = {
            "image": image_to_size(_to_channels(image, self._channels), size).clamp(0, 1),
            "target": self.targets[index].clone(),
            "group": row.group,
            "file": row.file,
        }
        if self._masks:
            item |= {"mask": self._mask(row, size), "annotated": torch.tensor(row.mask is not None)}
        if self._boxes is not None:
            item |= _padded_boxes(row, size, self._boxes)
        return item

    def _mask(self, row: PictureRow, size: tuple[int, int]) -> Tensor:
        if row.mask is None:
            return torch.ones(1, *size)
        mask = read_mask(inside_folder(self.folder, row.mask))
        _check_unchanged(tuple(mask.shape[1:]), tuple(row.header[1:]), row.mask)
        return mask_to_size(mask, size)


def _to_channels(image: Tensor, channels: Channels) -> Tensor:
    if channels == 3 and len(image) == 1:
        return image.repeat(3, 1, 1)
    if channels == 1 and len(image) == 3:
        # A gray picture saved as RGB stays what it was; the weights would change its last digits.
        alike = torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])
        return image[:1].clone() if alike else (image * torch.tensor(_GRAY)[:, None, None]).sum(0, keepdim=True)
    return image


def _padded_boxes(row: PictureRow, size: tuple[int, int], most: int) -> dict[str, Tensor]:
    boxes, classes = torch.zeros(most, 4), torch.full((most,), -1)
    if row.boxes:
        down, across = size[0] / row.header.height, size[1] / row.header.width
        scale = torch.tensor([across, down, across, down], dtype=torch.float64)
        boxes[: len(row.boxes)] = (torch.tensor(row.boxes, dtype=torch.float64) * scale).float()
        classes[: len(row.boxes)] = torch.tensor(row.box_classes)
    return {"boxes": boxes, "box_classes": classes}


def _check_unchanged(now: tuple[int, ...], then: tuple[int, ...], file: str) -> None:
    if now != then:
        raise DataError(
            got=f"{file} of shape {now}, which had {then} when the data set was made",
            needed="files that stay as they are",
            fix="make the data set again",
        )
