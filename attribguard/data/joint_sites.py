"""Two sites as one data set, in which the site gives the label away: the biased X-rays of the ActDiff paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from attribguard.data.drawing import check_whole, stream
from attribguard.data.splits import group_parts
from attribguard.errors import DataError, check_choice
from attribguard.masks import circle

__all__ = ["JointSites"]

_SPLITS = ("train", "valid", "test")
_SITES = 3  # the numbers of the streams that part the sites' patients follow those of the splits
_NAMES = "ab"


class JointSites(Dataset[dict[str, Any]]):
    """Healthy and unhealthy of two sites, mixed so that in training the site tells much about the label.

    In ``"train"``, the share ``correlation`` of the unhealthy is of site ``a`` and the rest of site ``b``, and of the
    healthy it is the other way round. In ``"valid"`` and ``"test"`` the two sites change places. In each split there
    are as many healthy as unhealthy and as many of one site as of the other, so that neither alone says anything. A
    correlation of 0.5 is the control: the site says nothing.

    Source: Viviano et al., Section 6, with PadChest for ``a``, ChestX-ray8 for ``b``, the label emphysema and a
    correlation of 0.9: 998, 498 and 504 pictures of 128 x 128 pixels. Departures: patients, whom the paper does not
    mention, are parted first, so that none is in two splits; a split is as large as the sites allow, unless ``n`` is
    given; and masks of the items' own, if both sites have them, go before the paper's circle.

    Items have ``image``, ``target`` (0 healthy, 1 unhealthy), ``site`` (0 = ``a``, 1 = ``b``), ``group`` (``"a:"`` or
    ``"b:"`` and the patient), ``mask`` and ``annotated``, and ``file`` if both sites have it.

    Args:
        a: the site of most of the unhealthy in training; items are dicts with ``image``, ``target`` and ``group``. If
            a data set has ``targets`` and ``groups``, as the readers have, only one item is read to make the mixture.
        b: the other site, with images of the same shape.
        label: which class, or which of several labels, is "unhealthy": its number, or its name where the data set has
            ``labels``; two of them, as a tuple, if the sites differ (``("emphysema", "Emphysema")``).
        correlation: share of the unhealthy that is of site ``a`` in training, 0 to 1.
        split: ``"train"``, ``"valid"`` or ``"test"``.
        n: number of items, even; by default as many as there can be.
        fractions: the shares of each site's items that go to the three splits.
        seed: 0 or more; with the same seed the three splits have no patient in common.

    Attributes:
        targets: (n,) int64.
        sites: (n,) int64.
        groups: site and patient of each item.
        labels: ``("healthy", "unhealthy")``.

    Raises:
        DataError: if the sites' items do not fit together, the label is unknown, there are too few of a kind, or a
            number is out of its range.
        RangeError: if ``split`` is none of the three.

    Example:
        >>> class Site(Dataset):
        ...     targets, groups = torch.arange(400) % 2, [str(index) for index in range(400)]
        ...     def __len__(self):
        ...         return 400
        ...     def __getitem__(self, index):
        ...         return {"image": torch.zeros(1, 8, 8), "target": self.targets[index], "group": self.groups[index]}
        >>> data = JointSites(Site(), Site(), label=1, correlation=0.9, n=100)
        >>> [int(((data.targets == 1) & (data.sites == site)).sum()) for site in (0, 1)]
        [45, 5]
        >>> data[0]["mask"].sum()  # the circle
        tensor(52.)
    """

    def __init__(
        self,
        a: Dataset[dict[str, Any]],
        b: Dataset[dict[str, Any]],
        label: int | str | tuple[int | str, int | str],
        correlation: float = 0.9,
        split: Literal["train", "valid", "test"] = "train",
        *,
        n: int | None = None,
        fractions: tuple[float, float, float] = (0.5, 0.25, 0.25),
        seed: int = 0,
    ) -> None:
        check_choice("split", split, _SPLITS)
        check_whole("seed", seed, 0)
        if not 0 <= correlation <= 1:
            raise DataError(got=f"correlation={correlation!r}", needed="0 to 1", fix="give a share")
        self._data: tuple[Any, Any] = (a, b)
        self._kept = _common_keys(a, b)
        wanted = label if isinstance(label, tuple) else (label, label)
        part, cells, groups = _SPLITS.index(split), list[NDArray[np.int64]](), list[list[str]]()
        for site, data in enumerate(self._data):
            positive = _positives(data, wanted[site])
            groups.append([f"{_NAMES[site]}:{group}" for group in _column(data, "group", "groups")])
            indices = group_parts(groups[site], fractions, stream(_SITES + site, seed))[part]
            cells += [indices[~positive[indices]], indices[positive[indices]]]  # healthy, unhealthy
        counts = _counts(cells, correlation if split == "train" else 1 - correlation, n)
        rng = stream(part, seed)
        chosen = [
            (site, target, int(index))
            for (site, target), cell, count in zip(((0, 0), (0, 1), (1, 0), (1, 1)), cells, counts, strict=True)
            for index in rng.permutation(cell)[:count]
        ]
        self._places = [chosen[place] for place in rng.permutation(len(chosen))]
        self.sites, self.targets, _ = torch.tensor(self._places).unbind(1)
        self.groups = [groups[site][index] for site, _, index in self._places]
        self.labels = ("healthy", "unhealthy")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One item, read from its site."""
        site, _, place = self._places[index]
        item = self._data[site][place]
        kept = {key: item[key] for key in self._kept}
        if "mask" not in kept:
            kept |= {"mask": circle(tuple(item["image"].shape[-2:]))[0], "annotated": torch.tensor(True)}
        mixed = {"target": self.targets[index].clone(), "site": self.sites[index].clone(), "group": self.groups[index]}
        return {"image": item["image"], **mixed, **kept}


def _common_keys(a: Any, b: Any) -> list[str]:
    first, second = a[0], b[0]
    if first["image"].shape != second["image"].shape:
        raise DataError(
            got=f"images of shape {tuple(first['image'].shape)} and {tuple(second['image'].shape)}",
            needed="the same shape at both sites",
            fix="give both readers the same size= and channels",
        )
    return [key for key in ("mask", "annotated", "file") if key in first and key in second]


def _column(data: Any, key: str, attribute: str) -> Sequence[Any]:
    """A key of all items: from the data set's own list of it, or else item by item."""
    column: Sequence[Any] | None = getattr(data, attribute, None)
    return [data[index][key] for index in range(len(data))] if column is None else column


def _positives(data: Any, label: int | str) -> NDArray[np.bool_]:
    """(N,) whether each item has the label."""
    names = list(getattr(data, "labels", ()))
    targets = _column(data, "target", "targets")
    table = targets if isinstance(targets, Tensor) else torch.stack(list(targets))
    number = names.index(label) if label in names else label
    most = table.shape[1] - 1 if table.dim() == 2 else int(table.max())
    if isinstance(number, str) or not 0 <= number <= most:
        known = ", ".join(names)[:300] or "none by name"
        raise DataError(got=f"the label {label!r}", needed=f"0 to {most}, or a name: {known}", fix="choose one")
    return np.asarray(table[:, number] == 1 if table.dim() == 2 else table == number)


def _counts(cells: list[NDArray[np.int64]], share: float, n: int | None) -> tuple[int, int, int, int]:
    """How many to take of each kind: a healthy, a unhealthy, b healthy, b unhealthy."""

    def split(half: int) -> tuple[int, int]:
        many = math.floor(share * half + 0.5)
        return many, half - many

    healthy_a, unhealthy_a, healthy_b, unhealthy_b = map(len, cells)
    of_many, of_few = min(unhealthy_a, healthy_b), min(healthy_a, unhealthy_b)
    # Rounded to none of a kind, a handful of items would be another mixture than the one asked for.
    halves = [
        half
        for half in range(1, of_many + of_few + 1)
        if split(half)[0] <= of_many and split(half)[1] <= of_few and (share in (0, 1) or min(split(half)) > 0)
    ]
    if not halves or (n is not None and (n % 2 or n // 2 not in halves)):
        sizes = f"an even number, {2 * halves[0]} to {2 * halves[-1]} in this split" if halves else "some of each kind"
        raise DataError(
            got=f"n={n}; healthy and unhealthy: {healthy_a} and {unhealthy_a} at a, {healthy_b} and {unhealthy_b} at b",
            needed=sizes,
            fix="give another n, other fractions, or larger data sets",
        )
    many, few = split(halves[-1] if n is None else n // 2)
    return few, many, many, few
