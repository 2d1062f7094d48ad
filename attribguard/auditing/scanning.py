"""Which patch a network clings to: a scan of a few pairs of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from attribguard.auditing.pools import ScanPool
from attribguard.errors import DataError, ModelError
from attribguard.probes.patch_swap import ClassScan, scan_classes
from attribguard.probes.patch_swap.crossed_mean import holm

__all__ = ["ALPHA", "MIN_DROP", "PairFigure", "Scan", "scan_pool"]

ALPHA, MIN_DROP = 0.01, 0.1
_PATCHES_A_SIDE, _PASSES, _SOURCES, _TARGETS = 7, 50, 12, 6


@dataclass(frozen=True)
class PairFigure:
    """What swapping patches between two classes does.

    Attributes:
        source: the class whose images lose certainty.
        target: the class whose patches they are given.
        drop: of certainty at each position, row by row; empty where nothing could be scanned.
        p_values: of each, corrected over all positions of all pairs; empty where ``untested`` says why.
        untested: why there are none, or an empty string.
    """

    source: int
    target: int
    drop: list[float]
    p_values: list[float]
    untested: str


@dataclass(frozen=True)
class Scan:
    """The scan of a network.

    Attributes:
        pairs: of classes.
        rows: of patches.
        columns: of patches.
        patch: side of a patch in pixels.
        passes: with dropout; 1 where the network has none.
    """

    pairs: list[PairFigure]
    rows: int
    columns: int
    patch: int
    passes: int

    def suspects(self) -> list[tuple[PairFigure, int]]:
        """Pairs and positions on which the network depends (p of 0.01 or less, drop of 0.1 or more), worst first."""
        found = [
            (pair, place)
            for pair in self.pairs
            for place, p in enumerate(pair.p_values)
            if p <= ALPHA and pair.drop[place] >= MIN_DROP
        ]
        return sorted(found, key=lambda one: -one[0].drop[one[1]])


def scan_pool(model: nn.Module, pool: ScanPool, seed: int) -> Scan:
    """Scan all pairs of the classes that were kept.

    A network without dropout is scanned by its plain certainty.

    Args:
        model: images to logits.
        pool: images of two classes or more.
        seed: of the choice of images and of dropout masks.

    Raises:
        DataError: if there are fewer than two classes.
        ModelError: if the network cannot be scanned.
    """
    classes = sorted(pool.images)
    if len(classes) < 2:
        raise DataError(got=f"images of {len(classes)} class(es)", needed="two", fix="scan more images")
    patch = max(1, min(pool.items[0][0].shape[-2:]) // _PATCHES_A_SIDE)
    pairs = [(a, b) for a in classes for b in classes if a != b]

    def scan(passes: int) -> ClassScan:
        return scan_classes(
            model, pool.items, pairs=pairs, sources=_SOURCES, targets=_TARGETS,
            patch_size=patch, passes=passes, generator=seed, progress=False,
        )  # fmt: skip

    try:
        found = scan(_PASSES)
    except ModelError:
        found = scan(1)
    tested = [pair for pair in found.pairs if not pair.untested]
    every = [p for pair in tested for p in pair.p_values]
    corrected = iter(holm(np.array(every)).tolist() if every else [])
    return Scan(
        [
            PairFigure(
                pair.source_class,
                pair.target_class,
                [round(drop, 6) for drop in pair.drop],
                [next(corrected) for _ in pair.p_values],
                pair.untested or "",
            )
            for pair in found.pairs
        ],
        *found.grid.shape,
        patch,
        found.passes,
    )
