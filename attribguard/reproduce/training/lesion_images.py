"""The images of the imbalance table: drawn chest radiographs with lesions, or ChestX-ray14 where somebody has it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from attribguard.data import ChestXray14, LesionPhantom, split_by_group
from attribguard.errors import DataError
from attribguard.masks import from_boxes
from attribguard.reproduce.training.images import Images

__all__ = ["LesionSplits", "draw_lesions", "read_chest_xray14"]

_KEYS = ("image", "target", "mask", "boxes", "box_classes")
_VALID = 0.1  # share of the patients of the training list
_LISTS = ("train_val_list.txt", "test_list.txt")


class LesionSplits(NamedTuple):
    """Images with ``target`` (K,), ``mask``, 1 in the boxes, ``boxes`` and ``box_classes``.

    Attributes:
        train: to train on.
        valid: for settings.
        test: what is classified.
        boxed: the test images in whose boxes maps and units are measured.
    """

    train: Images
    valid: Images
    test: Images
    boxed: Images


@lru_cache(maxsize=2)
def draw_lesions(sizes: tuple[int, int, int], size: int, seed: int) -> LesionSplits:
    """Draw the splits.

    Args:
        sizes: images of training, validation and test.
        size: height and width in pixels.
        seed: of the draw.
    """
    names: Any = ("train", "valid", "test")
    train, valid, test = (
        _stack(LesionPhantom(name, n, size, seed), range(n)) for name, n in zip(names, sizes, strict=True)
    )
    return LesionSplits(train, valid, test, test)


@lru_cache(maxsize=1)
def read_chest_xray14(folder: Path, sizes: tuple[int, int, int], size: int, seed: int) -> LesionSplits:
    """Read the splits: the data set's own two lists, the first parted by patient.

    Args:
        folder: as the NIH gives it out.
        sizes: the most images of training, validation and test; chosen at random. All test images with boxes are read
            beside them.
        size: height and width in pixels.
        seed: of splits and choice.

    Raises:
        DataError: if the folder cannot be read, or no picture on the test list has a box.
    """
    known, unseen = (ChestXray14(folder, name, size=size) for name in _LISTS)
    parts = split_by_group(known, known.groups, (1 - _VALID, _VALID), seed)
    boxed = unseen.boxed.nonzero()[:, 0].tolist()
    if not boxed:
        raise DataError(
            got=f"{folder} without a box on {_LISTS[1]}", needed="BBox_List_2017.csv as published", fix="put it there"
        )
    generator = torch.Generator().manual_seed(seed)

    def some(count: int, most: int) -> list[int]:
        return torch.randperm(count, generator=generator)[:most].sort().values.tolist()

    train, valid = (_stack(part, some(len(part), most)) for part, most in zip(parts, sizes, strict=False))
    return LesionSplits(train, valid, _stack(unseen, some(len(unseen), sizes[2])), _stack(unseen, boxed))


def _stack(data: Dataset[Any], rows: Iterable[int]) -> Images:
    items = [data[row] for row in rows]
    for item in items:
        if "mask" not in item:
            item["mask"] = from_boxes([item["boxes"][item["box_classes"] >= 0]], item["image"].shape[-2:])[0]
    return Images({key: torch.stack([item[key] for item in items]) for key in _KEYS})
