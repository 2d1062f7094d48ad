"""A data set in parts: by patient, and as papers did it that let a patient into several parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset, Subset

from attribguard.data.drawing import check_whole, stream
from attribguard.errors import DataError

__all__ = ["group_parts", "leaking_split", "split_by_group"]


def split_by_group(
    items: Dataset[Any], groups: Sequence[object], fractions: Sequence[float], seed: int = 0
) -> list[Subset[Any]]:
    """Part a data set so that no group (patient, scanner, hospital) is in two parts.

    Groups come in random order and fill one part after the other; a group on the border goes where most of it lies.
    A part is therefore off its share by half a group at each of its ends at most.

    Args:
        items: N of them.
        groups: N names or numbers, such as ``items.groups``. Those are the same which are written alike.
        fractions: the shares of items, above 0, which add up to 1; one part each.
        seed: 0 or more; the same seed gives the same parts on every machine, whatever the order of the items.

    Returns:
        One subset a share, its items in the order of the whole.

    Raises:
        DataError: if there are not as many groups as items, the shares are no shares, a part would be empty, or
            ``seed`` is not whole.

    Example:
        >>> patients = ["ann", "ann", "bob", "cy", "cy", "dee"]
        >>> train, test = split_by_group(range(6), patients, (0.5, 0.5), seed=0)
        >>> [patients[index] for index in train.indices], [patients[index] for index in test.indices]
        (['bob', 'dee'], ['ann', 'ann', 'cy', 'cy'])
    """
    check_whole("seed", seed, 0)
    if len(groups) != _length(items):
        raise DataError(
            got=f"{len(groups)} groups for {_length(items)} items", needed="one group an item", fix="give as many"
        )
    return [Subset(items, part.tolist()) for part in group_parts(groups, fractions, stream(_BY_GROUP, seed))]


def leaking_split(items: Dataset[Any], fractions: Sequence[float], seed: int = 0) -> list[Subset[Any]]:
    """Part a data set by slices, so that slices of one patient are in several parts. For comparison only.

    This is how the first of the two test sets of MTL-Swin-Unet was made ("Test Data (Hospitals 1-4)", Section
    "Settings of Two Datasets"): its slices and those of training may be of the same patients. A network then scores
    well on patients whom it remembers: 0.967 AUC in that paper, and 0.799 on patients of other hospitals. Use
    ``split_by_group`` for any figure that is to mean something.

    Args:
        items: N of them.
        fractions: the shares of items, above 0, which add up to 1; one part each.
        seed: 0 or more.

    Returns:
        One subset a share, its items in the order of the whole.

    Raises:
        DataError: as ``split_by_group``.

    Example:
        >>> [len(part) for part in leaking_split(range(10), (0.8, 0.2))]
        [8, 2]
    """
    return split_by_group(items, range(_length(items)), fractions, seed)


def group_parts(
    groups: Sequence[object], fractions: Sequence[float], rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The indices of each part of a split by group.

    Args:
        groups: N names or numbers.
        fractions: the shares, above 0, which add up to 1.
        rng: decides over the groups' order.

    Returns:
        One array of indices a share, each in ascending order, none empty.

    Raises:
        DataError: if the shares are no shares, or a part would be empty.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.ndim != 1 or not (shares > 0).all() or not abs(shares.sum() - 1) < 1e-6:
        raise DataError(
            got=f"fractions={fractions!r}", needed="numbers above 0 that add up to 1", fix="divide them by their sum"
        )
    _, members, sizes = np.unique([str(group) for group in groups], return_inverse=True, return_counts=True)
    order = rng.permutation(len(sizes))
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    part_of = np.empty(len(sizes), dtype=np.int64)
    part_of[order] = np.searchsorted(np.cumsum(shares)[:-1] * len(groups), middles, side="right")
    parts = [np.flatnonzero(part_of[members] == part) for part in range(len(shares))]
    if not all(len(part) for part in parts):
        raise DataError(
            got=f"{len(sizes)} groups of up to {sizes.max(initial=0)} items for the fractions {fractions!r}",
            needed="a group or more for each part",
            fix="give other fractions, or another seed",
        )
    return parts


_BY_GROUP = 5  # the number of this use's random stream; data sets use 0 to 4


def _length(items: Any) -> int:
    return len(items)
