"""What a patch-swap scan found."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attribguard.errors import DataError, RangeError
from attribguard.plain_data import parse_json, typed
from attribguard.probes.patch_swap.crossed_mean import crossed_mean, excess, holm
from attribguard.probes.patch_swap.patch_grid import PatchGrid
from attribguard.probes.patch_swap.scan_arguments import Dropout, Mode, Reduce, check_shares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LEAST_SOURCES", "ScanResult"]

Floats = NDArray[np.float64]

# With fewer, Student's t leans on the normality of few differences, far out in its tail.
LEAST_SOURCES = 8
_ARRAYS = {"certainty": (np.float64, 1), "baseline": (np.float64, 1), "picture": (np.uint8, 255)}  # types and maxima


@dataclass(frozen=True, eq=False)
class ScanResult:
    """The certainties of one scan at one patch size, and what can be said of the positions.

    Sources and targets are taken for samples of all there could be, and the masks for given: intervals and p values
    say what other images would show under the same masks. ``passes`` says how well these stand for dropout.

    Attributes:
        certainty: (S, N, P) in [0, 1]: of each source's class, with patch p from target n.
        baseline: (S,) in [0, 1]: of the source as it is, under the same masks.
        source_class: the class of each source.
        grid: where the P patches lie; its ``left_out`` counts rows and columns at the border that lie in none.
        passes: T.
        seed: of the masks; the same one gives the same scan.
        mode: what replaced the patches.
        reduce: how T probabilities became one.
        dropout: as it was asked for.
        left_out: sources that were left out because the network does not classify them as their class.
        picture: (H, W) or (H, W, 3) uint8, the first source, stretched to 0 to 255; to draw on.
    """

    certainty: Floats = field(repr=False)
    baseline: Floats = field(repr=False)
    source_class: tuple[int, ...] = field(repr=False)
    grid: PatchGrid
    passes: int
    seed: int
    mode: Mode
    reduce: Reduce
    dropout: Dropout
    left_out: int
    picture: NDArray[np.uint8] = field(repr=False)

    @property
    def drops(self) -> Floats:
        """By how much each swap lowers the certainty, (S, N, P); negative where it raises it."""
        return self.baseline[:, None, None] - self.certainty

    @property
    def drop(self) -> Floats:
        """The mean drop over sources and targets, (P,)."""
        return np.asarray(self.drops.mean((0, 1)))

    @property
    def excess(self) -> Floats:
        """Each position's drop minus the mean drop of all others, (P,); nan for a single position.

        Sources that were chosen for their class lose certainty with whatever patch they lose; this takes it out.
        """
        return excess(self.drop)

    @property
    def curves(self) -> Floats:
        """Each source's certainty by position, mean over the targets, (S, P), as drawn in the paper's Figure 3."""
        return np.asarray(self.certainty.mean(1))

    @property
    def argmin(self) -> int:
        """The position with the lowest mean certainty, which the paper takes for the spurious one."""
        return int(self.curves.mean(0).argmin())

    def interval(self, level: float = 0.95, of: Literal["drop", "excess"] = "drop") -> Floats:
        """Student's interval for each position, not corrected for their number.

        Args:
            level: its coverage, between 0 and 1.
            of: the drop, or the excess over the other positions.

        Returns:
            (P, 2), lower and upper end; nan with a single source, or a single target that was swapped with.

        Raises:
            RangeError: if an option is out of range.
        """
        if not 0 < level < 1:
            raise RangeError(got=f"level={level}", needed="a coverage between 0 and 1", fix="give 0.95, for instance")
        if of not in ("drop", "excess"):
            raise RangeError(got=f"of={of!r}", needed="'drop' or 'excess'", fix="choose one of them")
        values = self.drops if of == "drop" else excess(self.drops)
        return crossed_mean(values, columns_random=self.mode == "swap").interval(level)

    @property
    def untested(self) -> str | None:
        """Why there are no p values, or ``None`` where there are."""
        sources, targets, positions = self.certainty.shape
        if sources < LEAST_SOURCES:
            return f"{sources} sources, of {LEAST_SOURCES} or more that a test needs"
        if targets < 2 and self.mode == "swap":
            return "1 target, of 2 or more that a test needs"
        return "1 position, with no others to compare" if positions == 1 else None

    @property
    def single_p_values(self) -> Floats:
        """The p values before the correction for the number of positions, (P,); nan where ``untested`` says why."""
        if self.untested:
            return np.full(len(self.grid), np.nan)
        return crossed_mean(excess(self.drops), columns_random=self.mode == "swap").above_zero()

    @property
    def p_values(self) -> Floats:
        """One-sided p values of "this position's excess is not above 0", corrected over the positions after Holm, (P,).

        Student's t with the two-way variance of crossed sources and targets, see
        :func:`attribguard.probes.patch_swap.crossed_mean.crossed_mean`. All nan where ``untested`` says why.
        """
        return holm(self.single_p_values)

    def suspects(self, alpha: float = 0.05, min_drop: float = 0.1) -> list[int]:
        """The positions on which the network depends beyond doubt and by enough to matter.

        Args:
            alpha: the highest p value, in (0, 1]: the chance that a network which depends on no position more than on
                others has any suspect.
            min_drop: the lowest drop of certainty, in [0, 1].

        Returns:
            Their numbers, the largest drop first.

        Raises:
            RangeError: if an argument is out of range.
            DataError: if there are no p values; ``untested`` says why.
        """
        check_shares(alpha, min_drop)
        if self.untested:
            raise DataError(got=self.untested, needed="p values", fix="scan more, or read argmin and interval()")
        found = np.flatnonzero((self.p_values <= alpha) & (self.drop >= min_drop))
        return [int(position) for position in found[np.argsort(-self.drop[found], kind="stable")]]

    def irrelevant_mask(self, alpha: float = 0.05, min_drop: float = 0.1) -> Tensor:
        """A mask in which the suspects are irrelevant, for a penalty: 0 in their patches, 1 elsewhere.

        As every mask here it is 1 where the image is *relevant*: ``guard(x, y, mask=mask.expand(len(x), 1, H, W))``
        then teaches the network to do without the suspects.

        Args:
            alpha: as in :meth:`suspects`, like what follows.
            min_drop: the lowest drop.

        Returns:
            (1, 1, H, W) float32.

        Raises:
            RangeError: as there.
            DataError: as there.
        """
        return self.grid.mask_without(self.suspects(alpha, min_drop))

    def heatmap(self) -> Floats:
        """The drop at each pixel, the mean over the patches that hold it: (H, W), nan where none does."""
        total, patches = np.zeros((2, *self.grid.image))
        for position, drop in enumerate(self.drop):
            top, left = self.grid.corner(position)
            place = slice(top, top + self.grid.patch), slice(left, left + self.grid.patch)
            total[place] += drop
            patches[place] += 1
        with np.errstate(invalid="ignore"):
            return total / patches

    def to_json(self) -> str:
        """The whole result as text; :meth:`from_json` reads it back without loss."""
        return json.dumps(dataclasses.asdict(self), default=np.ndarray.tolist)

    @classmethod
    def from_json(cls, text: str) -> ScanResult:
        """Read what :meth:`to_json` wrote.

        Args:
            text: the whole of it.

        Raises:
            DataError: if it is not a scan's.
        """
        try:
            values = typed(dict[str, Any], parse_json(text))
            arrays = {name: np.asarray(values.get(name), np.float64) for name in _ARRAYS}
            for name, (_, most) in _ARRAYS.items():  # before they are converted: numpy 1 lets them overflow
                if not ((arrays[name] >= 0) & (arrays[name] <= most)).all():
                    raise ValueError(f"a {name} that is not between 0 and {most}")
            scan = typed(cls, values, **{n: (lambda _, n=n: arrays[n].astype(_ARRAYS[n][0])) for n in arrays})
        except (ValueError, TypeError, OverflowError) as error:  # numpy's of what is no array of such numbers
            raise _no_scan(str(error)) from error
        sources, positions = len(scan.source_class), math.prod(scan.grid.shape)
        if scan.certainty.ndim != 3 or scan.certainty.shape[::2] != (sources, positions) or not scan.certainty.size:
            raise _no_scan("numbers of sources or positions that differ")
        if scan.baseline.shape != (sources,) or scan.picture.shape not in (scan.grid.image, (*scan.grid.image, 3)):
            raise _no_scan("a baseline or a picture of another shape")
        return scan

    def plot(self, axes: tuple[Axes, Axes] | None = None) -> Figure:
        """Draw the drop over a source, and the certainty of each source by position, as in the paper's Figure 3.

        Args:
            axes: where to draw the two; made by default.

        Returns:
            The figure, to be saved or shown.
        """
        from attribguard.probes.patch_swap.scan_picture import draw  # matplotlib takes a while to import

        return draw(self, axes)

    def __str__(self) -> str:
        sources, targets, positions = self.certainty.shape
        bottom, right = self.grid.left_out
        parts = [
            f"patch-swap scan ({self.mode}): {positions} positions of {self.grid.patch} x {self.grid.patch} pixels",
            f"T = {self.passes} passes, N = {targets} targets, S = {sources} sources, seed {self.seed}",
        ]
        if self.left_out:
            parts.append(f"{self.left_out} sources left out, which the network does not classify as their class")
        if bottom or right:
            parts.append(f"not scanned at the border: {bottom} pixels below, {right} at the right")
        return "; ".join(parts)


def _no_scan(got: str) -> DataError:
    return DataError(got=f"text that is no scan ({got})", needed="what to_json wrote", fix="pass the whole of it")
