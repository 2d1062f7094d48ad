"""What a loader gives, as the audit reads it: images, classes, what is annotated, and what each image is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.masks import from_boxes

__all__ = ["AuditBatch", "read_batch"]

_TUPLE = ("image", "target", "mask")


class AuditBatch(NamedTuple):
    """Some images.

    Attributes:
        images: (N, C, H, W).
        targets: (N,) int64.
        regions: (N, H, W) bool, what is relevant; all False where nobody has annotated it.
        groups: what each image belongs to, such as its patient or hospital; empty where none are given.
        names: of the images.
    """

    images: Tensor
    targets: Tensor
    regions: Tensor
    groups: list[str]
    names: list[str]

    def first(self, n: int) -> AuditBatch:
        """The first images of it.

        Args:
            n: how many.
        """
        return AuditBatch(self.images[:n], self.targets[:n], self.regions[:n], self.groups[:n], self.names[:n])


def read_batch(batch: Any, start: int) -> AuditBatch:
    """Read what a loader gives.

    A mask that is 1 everywhere or nowhere says nothing, and its image counts as not annotated.

    Args:
        batch: ``(image, target)``, ``(image, target, mask)``, or a dict with ``image`` and ``target``, and perhaps
            ``mask``, ``annotated``, ``boxes`` with ``box_classes`` (-1 for those that only fill up), ``group`` and
            ``file``: images (N, C, H, W), one class an image (N,), masks (N, 1, H, W) or (N, H, W), 1 where relevant.
        start: how many images came before, for the names of those that have none.

    Returns:
        The batch.

    Raises:
        TypeMismatchError: if it is none of these.
        ShapeError: if sizes do not fit.
        RangeError: if a class or a box is out of range.
    """
    given = dict(batch) if isinstance(batch, Mapping) else None
    if given is None and isinstance(batch, (tuple, list)) and len(batch) in (2, 3):
        given = dict(zip(_TUPLE, batch, strict=False))
    if given is None or not isinstance(given.get("image"), Tensor) or "target" not in given:
        raise TypeMismatchError(
            got=f"a batch that is a {type(batch).__name__}" + (f" with {sorted(map(str, given))}" if given else ""),
            needed="(image, target), (image, target, mask) or a dict with image and target",
            fix="let the loader's collate_fn give one of these",
        )
    images = given["image"]
    if images.dim() != 4 or not len(images) or not images.is_floating_point():
        raise ShapeError(
            got=f"images of shape {tuple(images.shape)} and {images.dtype}",
            needed="(N, C, H, W) floating, N of 1 or more",
            fix="convert them, or let a DataLoader batch them",
        )
    n = len(images)
    regions = _regions(given, images)
    if "annotated" in given:
        regions = regions & torch.as_tensor(given["annotated"]).bool().view(n, 1, 1)
    groups = [] if given.get("group") is None else _names(given["group"], n, "group")
    names = _names(given["file"], n, "file") if "file" in given else [f"image {start + i}" for i in range(n)]
    return AuditBatch(images, _classes(given["target"], n), regions, groups, names)


def _classes(target: Any, n: int) -> Tensor:
    classes = torch.as_tensor(target)
    if classes.is_floating_point() or classes.shape != (n,):
        raise ShapeError(
            got=f"a target of shape {tuple(classes.shape)} and {classes.dtype}",
            needed=f"({n},) whole numbers: one class an image",
            fix="audit one label of several at a time, as 0 and 1",
        )
    if bool((classes < 0).any()):
        raise RangeError(got=f"class {int(classes.min())}", needed="0 or more", fix="leave unlabelled images out")
    return classes.long()


def _regions(given: Mapping[str, Any], images: Tensor) -> Tensor:
    n, _, height, width = images.shape
    if (mask := given.get("mask")) is not None:
        mask = torch.as_tensor(mask)
        if mask.shape not in ((n, 1, height, width), (n, height, width)):
            raise ShapeError(
                got=f"masks of shape {tuple(mask.shape)} for images of shape {tuple(images.shape)}",
                needed=f"({n}, 1, {height}, {width})",
                fix="resize the masks with the images",
            )
        regions = mask.reshape(n, height, width) >= 0.5
    elif (boxes := given.get("boxes")) is not None:
        rows = list(torch.as_tensor(boxes))
        if "box_classes" in given:
            rows = [row[torch.as_tensor(kind) >= 0] for row, kind in zip(rows, given["box_classes"], strict=True)]
        regions = from_boxes(rows, (height, width))[:, 0] > 0
    else:
        return torch.zeros(n, height, width, dtype=torch.bool)
    return regions & ~regions.flatten(1).all(1)[:, None, None]


def _names(given: Any, n: int, what: str) -> list[str]:
    values = given.tolist() if isinstance(given, Tensor) else list(given)
    if len(values) != n:
        raise ShapeError(got=f"{len(values)} of {what!r} for {n} images", needed="one an image", fix="check the loader")
    return [str(value) for value in values]
