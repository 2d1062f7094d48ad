"""What scans of many pairs of classes found, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.table import Table
from torch import Tensor

from attribguard.errors import DataError
from attribguard.probes.patch_swap.crossed_mean import holm
from attribguard.probes.patch_swap.patch_grid import PatchGrid
from attribguard.probes.patch_swap.scan_arguments import check_shares
from attribguard.probes.patch_swap.scan_result import ScanResult

__all__ = ["ClassScan", "ClassSuspect", "PairScan"]


class ClassSuspect(NamedTuple):
    """A patch on which the network depends to tell one class from another.

    Attributes:
        source_class: the class whose images lose certainty.
        target_class: the class whose patches they were given.
        position: the patch's number, row by row from 0.
        corner: its upper left pixel, row and column.
        drop: of certainty.
        p_value: corrected over all positions of all pairs.
    """

    source_class: int
    target_class: int
    position: int
    corner: tuple[int, int]
    drop: float
    p_value: float


@dataclass(frozen=True)
class PairScan:
    """One pair of classes in short.

    Attributes:
        source_class: the class of the sources.
        target_class: the class of the targets.
        sources: S.
        targets: N.
        drop: (P,), empty where there was nothing to scan.
        p_values: (P,), one-sided, not corrected; empty where ``untested`` says why.
        untested: why there are no p values, or ``None``.
    """

    source_class: int
    target_class: int
    sources: int
    targets: int
    drop: tuple[float, ...]
    p_values: tuple[float, ...]
    untested: str | None

    @classmethod
    def of(cls, source_class: int, target_class: int, scan: ScanResult) -> PairScan:
        """Keep of a scan what the table needs.

        Args:
            source_class: of its sources.
            target_class: of its targets.
            scan: the result.
        """
        sources, targets, _ = scan.certainty.shape
        p_values = () if scan.untested else tuple(scan.single_p_values.tolist())
        return cls(source_class, target_class, sources, targets, tuple(scan.drop.tolist()), p_values, scan.untested)


@dataclass(frozen=True)
class ClassScan:
    """Scans of several pairs of classes.

    Attributes:
        pairs: what each of them found.
        grid: where the patches lie.
        passes: T.
        seed: of the images that were drawn, and of the masks.
    """

    pairs: tuple[PairScan, ...]
    grid: PatchGrid
    passes: int
    seed: int

    @property
    def untested(self) -> list[PairScan]:
        """The pairs without p values; each says why."""
        return [pair for pair in self.pairs if pair.untested]

    def suspects(self, alpha: float = 0.05, min_drop: float = 0.1) -> list[ClassSuspect]:
        """The positions on which the network depends beyond doubt and by enough to matter.

        p values are corrected after Holm over all positions of all pairs, so that ``alpha`` holds for the whole table.

        Args:
            alpha: the highest p value, in (0, 1].
            min_drop: the lowest drop of certainty, in [0, 1].

        Returns:
            The largest drop first.

        Raises:
            RangeError: if an argument is out of range.
            DataError: if no pair could be tested; ``untested`` says why.
        """
        check_shares(alpha, min_drop)
        tested = [pair for pair in self.pairs if not pair.untested]
        if not tested:
            reasons = sorted({pair.untested or "" for pair in self.pairs})
            raise DataError(got="; ".join(reasons), needed="a pair with p values", fix="scan more images")
        p_values = holm(np.concatenate([pair.p_values for pair in tested])).reshape(len(tested), -1)
        found = [
            ClassSuspect(pair.source_class, pair.target_class, position, self.grid.corner(position), drop, float(p))
            for pair, row in zip(tested, p_values, strict=True)
            for position, (drop, p) in enumerate(zip(pair.drop, row, strict=True))
            if p <= alpha and drop >= min_drop
        ]
        return sorted(found, key=lambda suspect: -suspect.drop)

    def irrelevant_mask(self, alpha: float = 0.05, min_drop: float = 0.1) -> Tensor:
        """A mask in which the suspects of all pairs are irrelevant: 0 in their patches, 1 elsewhere.

        All of them in every image, for a network that is taught to ignore the patch of one class alone learns that its
        absence speaks against that class.

        Args:
            alpha: as in :meth:`suspects`, like what follows.
            min_drop: the lowest drop.

        Returns:
            (1, 1, H, W) float32, 1 = relevant.

        Raises:
            RangeError: as there.
            DataError: as there.
        """
        return self.grid.mask_without({suspect.position for suspect in self.suspects(alpha, min_drop)})

    def table(self, alpha: float = 0.05, min_drop: float = 0.1) -> Table:
        """The suspects as a table to print with ``rich``.

        Args:
            alpha: as in :meth:`suspects`, like what follows.
            min_drop: the lowest drop.

        Raises:
            RangeError: as there.
            DataError: as there.
        """
        sources, targets = (sorted({getattr(pair, name) for pair in self.pairs}) for name in ("sources", "targets"))
        table = Table(
            "class", "patches of", "position", "row, column", "drop", "p",
            title="Patches on which the network depends",
            caption=f"{len(self.pairs)} pairs of classes, {len(self.untested)} of them untested; T = {self.passes}, "
            f"N = {_span(targets)}, S = {_span(sources)}, seed {self.seed}",
        )  # fmt: skip
        for found in self.suspects(alpha, min_drop):
            place = f"{found.corner[0]}, {found.corner[1]}"
            names = (found.source_class, found.target_class, found.position, place)
            table.add_row(*map(str, names), f"{found.drop:.3f}", f"{found.p_value:.2g}")
        return table


def _span(counts: list[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
