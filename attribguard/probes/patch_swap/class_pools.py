"""Draw from a data set, class by class, the images that a scan of its classes needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from attribguard.errors import ShapeError, TypeMismatchError

__all__ = ["Items", "Pool", "draw_pools", "read_item"]

# Images that the network sees at a time.
_TOGETHER = 256


class Items(Protocol):
    """A data set with random access."""

    def __len__(self) -> int:
        """How many items it has."""

    def __getitem__(self, index: int, /) -> Any:
        """One of them, ``(image, target, ...)`` or a dict with ``"image"`` and ``"target"``."""


@dataclass(frozen=True)
class Pool:
    """Images of one class. One may be in both lists: no class is swapped with itself.

    Attributes:
        sources: (C, H, W) each, that the network classifies as their class.
        targets: (C, H, W) each.
    """

    sources: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)

    def full(self, sources: int, targets: int) -> bool:
        """Whether there are enough of both.

        Args:
            sources: how many are wanted.
            targets: how many are wanted.
        """
        return len(self.sources) >= sources and len(self.targets) >= targets


def draw_pools(
    dataset: Items, predict: Callable[[Tensor], Tensor], wanted: Collection[int], sources: int, targets: int, seed: int
) -> dict[int, Pool]:
    """Go through a data set in random order until every class that is wanted has enough images.

    No more is held in memory than what is kept and one batch.

    Args:
        dataset: of ``(image, target, ...)`` or dicts, images (C, H, W) of one size, targets whole numbers.
        predict: (N, C, H, W) to (N,) classes.
        wanted: the classes.
        sources: how many a class; fewer where the data set has no more that are classified as their class.
        targets: how many a class.
        seed: of the order.

    Returns:
        Class to pool.

    Raises:
        TypeMismatchError: if an item is not of that form.
        ShapeError: if images differ in size.
    """
    pools = {target: Pool() for target in wanted}
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    for start in range(0, len(order), _TOGETHER):
        lacking = {target for target, pool in pools.items() if not pool.full(sources, targets)}
        if not lacking:
            break
        read = (read_item(dataset, index) for index in order[start : start + _TOGETHER])
        items = [(image, target) for image, target in read if target in lacking]
        if not items:
            continue
        sizes = {tuple(image.shape) for image, _ in items}
        if len(sizes) > 1:
            raise ShapeError(got=f"images of {sorted(sizes)}", needed="one size", fix="resize them in the data set")
        predicted = predict(torch.stack([image for image, _ in items])).tolist()
        for (image, target), said in zip(items, predicted, strict=True):
            pool = pools[target]
            if len(pool.targets) < targets:
                pool.targets.append(image)
            if said == target and len(pool.sources) < sources:
                pool.sources.append(image)
    return pools


def read_item(dataset: Items, index: int) -> tuple[Tensor, int]:
    """Read an item's image and target.

    Args:
        dataset: of such items.
        index: which one.

    Returns:
        (C, H, W), and the class.

    Raises:
        TypeMismatchError: if it is not of that form.
    """
    item = dataset[index]
    try:
        first, second = (item["image"], item["target"]) if isinstance(item, Mapping) else item[:2]
        image, target = first, int(second)
    except (TypeError, ValueError, LookupError, RuntimeError):
        image, target = None, 0
    if not isinstance(image, Tensor) or image.dim() != 3 or not image.is_floating_point():
        raise TypeMismatchError(
            got=f"an item of {type(item).__name__} in the data set",
            needed="(image, target, ...) or a dict of them: a floating point tensor (C, H, W) and a whole number",
            fix="transform the images to tensors",
        )
    return image, target
