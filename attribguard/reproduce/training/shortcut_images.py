"""The images of the ActDiff paper's tables: crosses, organs, and two sites; read or drawn, whole splits in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attribguard.data import OrganPhantom, SitesPhantom
from attribguard.demo.splits import load_splits
from attribguard.masks import dilate
from attribguard.reproduce.training.images import Images
from attribguard.reproduce.training.shortcut_folders import read_decathlon, read_sites

__all__ = ["ShortcutSplits", "load_shortcut_splits"]

_KEYS = ("image", "target", "mask", "annotated")


class ShortcutSplits(NamedTuple):
    """What a training needs.

    Attributes:
        train: with masks grown, and ``annotated``.
        valid: for settings.
        tests: test sets by the name of the metric.
    """

    train: Images
    valid: Images
    tests: dict[str, Images]


def load_shortcut_splits(s: Mapping[str, Any], data: Path | None, seed: int) -> ShortcutSplits:
    """Read or draw the splits of one training.

    Args:
        s: ``data``: ``"files"``, ``"crosses"``, ``"organs"``, ``"sites"``, ``"decathlon"`` or ``"site folders"``;
            ``train``, ``valid`` and ``test`` images, of which site folders give as many as there are; ``size`` in
            pixels, ``strength`` of the shortcut, ``dilate``: pixels by which masks grow, ``masks``: share of the
            training images whose mask is kept.
        data: the folder of files.
        seed: of the draw.

    Raises:
        DataError: if a file is missing or unreadable.
    """
    sizes = (s["train"], s["valid"], s["test"])
    splits = _load(s["data"], data, sizes, s.get("size", 28), s.get("strength", 0.0), seed)
    train = splits.train.tensors
    annotated = train["annotated"]
    if s["masks"] < 1:
        # A draw of its own, so that the images and weights of a seed are the same whatever the share.
        order = torch.randperm(len(annotated), generator=torch.Generator().manual_seed(seed))
        annotated = annotated & (order < round(s["masks"] * len(annotated)))
    grown = {"mask": dilate(train["mask"], s["dilate"]), "annotated": annotated}
    return splits._replace(train=Images({**train, **grown}))


@lru_cache(maxsize=2)
def _load(
    kind: str, data: Path | None, sizes: tuple[int, int, int], size: int, strength: float, seed: int
) -> ShortcutSplits:
    return _LOADERS[kind](data, sizes, size, strength, seed)


def _crosses(data: Path | None, sizes: tuple[int, int, int], size: int, strength: float, seed: int) -> ShortcutSplits:
    parts = [
        Images({"image": x, "target": y, "mask": m, "annotated": torch.ones(len(y), dtype=torch.bool)})
        for x, y, m in load_splits(data, sizes, seed)
    ]
    return ShortcutSplits(parts[0], parts[1], {"test": parts[2]})


def _organs(data: Path | None, sizes: tuple[int, int, int], size: int, strength: float, seed: int) -> ShortcutSplits:
    train, valid, test = sizes
    shown = OrganPhantom("test", test, size, seed, strength=strength)
    return ShortcutSplits(
        _drawn(OrganPhantom("train", train, size, seed, strength=strength)),
        _drawn(OrganPhantom("valid", valid, size, seed, strength=strength)),
        {"test": _drawn(shown), "neutral": _drawn(shown.shortcut(0.5))},
    )


def _sites(data: Path | None, sizes: tuple[int, int, int], size: int, strength: float, seed: int) -> ShortcutSplits:
    train, valid, test = sizes
    return ShortcutSplits(
        _drawn(SitesPhantom("train", train, size, seed, strength=strength)),
        _drawn(SitesPhantom("valid", valid, size, seed, strength=strength)),
        {
            "test": _drawn(SitesPhantom("test", test, size, seed, strength=strength)),
            "seen": _drawn(SitesPhantom("seen", test, size, seed, strength=strength)),
        },
    )


def _drawn(data: Any) -> Images:
    items = [data[index] for index in range(len(data))]
    return Images({key: torch.stack([_tensor(item[key]) for item in items]) for key in _KEYS})


def _tensor(value: Any) -> Tensor:
    return torch.as_tensor(value)


def _decathlon(data: Path | None, sizes: tuple[int, int, int], size: int, strength: float, seed: int) -> ShortcutSplits:
    train, valid, test = read_decathlon(data or Path(), sizes, size, seed)
    return ShortcutSplits(train, valid, {"test": test})


def _site_folders(
    data: Path | None, sizes: tuple[int, int, int], size: int, strength: float, seed: int
) -> ShortcutSplits:
    train, valid, test, seen = read_sites(data or Path(), strength, size, seed)
    return ShortcutSplits(train, valid, {"test": test, "seen": seen})


_LOADERS: dict[str, Callable[..., ShortcutSplits]] = {
    "files": _crosses,
    "crosses": lambda data, *rest: _crosses(None, *rest),
    "organs": _organs,
    "sites": _sites,
    "decathlon": _decathlon,
    "site folders": _site_folders,
}
