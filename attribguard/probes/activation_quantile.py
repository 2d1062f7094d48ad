"""The value that a unit's activations exceed on a given share of all places: thresholds for its map."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from attribguard.errors import RangeError, ShapeError
from attribguard.functional.checks import check_number, is_whole
from attribguard.functional.quantile_sketch import SMALLEST_SKETCH, compact, upper_quantiles
from attribguard.functional.values_above import values_above
from attribguard.probes.unit_maps import as_unit_maps
from attribguard.processes import in_process_group

__all__ = ["ActivationQuantile"]

_BYTES = 4  # of a float32


class ActivationQuantile(Metric):
    r"""For each unit the threshold that a share q of its activations exceeds (Bau et al. 2017, network dissection).

    Of the n activations of a unit, at all places of all images, it is the smallest one with at most :math:`q n` others
    *above* it: number :math:`\lfloor q n \rfloor + 1` from the top, or ``numpy.quantile`` of ``1 - q`` with
    ``method="inverted_cdf"``. So exactly :math:`\lfloor q n \rfloor` are above, and fewer where values are equal: a
    dead unit has the threshold 0 and nothing above it. Network dissection takes q = 0.005; Li et al. (Section 3.2) say
    only "threshold activations", so that several are the default here.

    *Exact* where ``total`` is given and two times the :math:`\lfloor q \, total \rfloor + 1` largest values of each
    unit fit into ``max_bytes``, for the largest q. Several processes then give exactly what one gives.
    *Approximate* otherwise, with a warning if ``total`` was given: a sketch of ``max_bytes``
    (:func:`attribguard.functional.quantile_sketch.compact`). The share above a threshold is then off q by
    :meth:`rank_error` or less. With R values held of each unit, which is ``max_bytes / (4 U + 4)``, that was at most
    about 8 / R in streams of up to 7000 R values, at a confidence of 99 %; the errors themselves had a standard
    deviation of about 1.2 / R. By default R is 130,000 for 512 units and 32,000 for 2048.

    A ``torchmetrics.Metric``: ``update``, ``compute``, ``reset``, ``forward``, ``MetricCollection``, several processes.

    Args:
        q: a share above 0 and below 1, or several.
        total: how many activations each unit will have at most, images times h times w, in all processes together.
        max_bytes: of what is held between updates, in each process. An update needs memory for its own batch besides,
            and ``compute`` for the states of all processes.
        seed: of the sketch.
        **kwargs: those of every ``torchmetrics.Metric``.

    Attributes:
        q: as a tuple.

    Raises:
        TypeMismatchError: if a share is no number.
        RangeError: if an argument is outside its range.

    Example:
        >>> quantile = ActivationQuantile(q=0.25, total=8)
        >>> quantile.update(torch.tensor([[[[1.0, 4.0], [2.0, 3.0]]], [[[5.0, 6.0], [0.0, 0.0]]]]))
        >>> quantile.compute()
        tensor(4.)
        >>> ActivationQuantile(total=100)(torch.arange(100.0).view(1, 1, 10, 10))
        {'q=0.005': tensor(99.), 'q=0.02': tensor(97.), 'q=0.05': tensor(94.), 'q=0.1': tensor(89.)}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = True  # an update has to see all that is held to keep it within its bounds

    weights: list[Tensor] | Tensor
    count: Tensor
    squares: Tensor

    def __init__(
        self,
        q: float | Sequence[float] = (0.005, 0.02, 0.05, 0.1),
        total: int | None = None,
        max_bytes: int = 2**28,
        *,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        shares = tuple(q) if isinstance(q, Sequence) else (q,)
        for share in shares:
            check_number("q", share, "above 0 and below 1", lambda value: 0 < value < 1)
        if len(set(shares)) < max(1, len(shares)):
            raise RangeError(got=f"q={q!r}", needed="one share or more, all different", fix="try q=0.005")
        for name, value, lowest in (("total", total, 1), ("max_bytes", max_bytes, 1), ("seed", seed, 0)):
            if not (is_whole(value, lowest) or (value is None and name == "total")):
                raise RangeError(got=f"{name}={value!r}", needed=f"a whole number, {lowest} or more", fix="choose one")
        super().__init__(**kwargs)
        self.q, self.total, self.max_bytes, self.seed = tuple(map(float, shares)), total, max_bytes, seed
        self._several = isinstance(q, Sequence)
        settings = f"q={self.q}, total={total}, max_bytes={max_bytes}, seed={seed}"
        # Values of all units, then the next ones of all, in one axis: joined, and empty, without knowing the units.
        self._values = f"values of {type(self).__name__}({settings})".replace(".", "p")
        for name in (self._values, "weights"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("squares", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Take in a batch.

        Args:
            features: (N, U, h, w) floating, finite: a layer's maps, channels first, at the size that the network gives
                them. :func:`attribguard.layout.to_nchw` brings channels-last maps and tokens there.

        Raises:
            TypeMismatchError: if it is no floating-point tensor.
            ShapeError: if it is not (N, U, h, w), or of another number of units than before.
            RangeError: if it is not finite somewhere, if a unit would have more activations than ``total``, or if
                ``max_bytes`` is too little for so many units.
        """
        maps = as_unit_maps(features).to(self.device)
        if not len(maps):
            return
        values, weights = (getattr(self, name) for name in (self._values, "weights"))
        units, new = maps.shape[1], maps[:, 0].numel()
        if weights and values[0].numel() != len(weights[0]) * units:
            raise ShapeError(
                got=f"features of {units} units",
                needed=f"{values[0].numel() // len(weights[0])}, as before",
                fix="keep one metric a layer",
            )
        count = int(self.count) + new
        self._check_total(count)
        kept, limit = self._plan(units)
        rows = maps.permute(0, 2, 3, 1).flatten(0, 2)
        if kept is not None and self.count >= kept:
            # What is no larger than the smallest of the largest values so far is none of the largest.
            rows = values_above(maps, values[0][(kept - 1) * units : kept * units])
        elif kept is not None and new >= kept:
            rows = maps.transpose(0, 1).flatten(1).topk(kept, 1).values.t()
        if len(rows):
            values.append(rows.flatten().clone())  # rows can be a view of features that the network overwrites
            weights.append(rows.new_ones(len(rows)))
        self.count = self.count + new
        held = sum(map(len, weights))
        if held > limit or (kept is not None and held >= kept > count - new):
            self._shrink(units, kept, limit, count)

    def compute(self) -> Any:
        """The thresholds.

        Returns:
            (U,) float32 for one q, a 0-d tensor for one unit; for several q a dict from names such as ``"q=0.005"`` to
            such tensors, which :class:`attribguard.probes.concept_count.ConceptCount` takes as it is.

        Raises:
            RangeError: if there was no update, or if all processes together had more activations than ``total``.
        """
        count = int(self.count)
        if not count:
            raise RangeError(got="no features", needed="one batch or more", fix="call update first")
        self._check_total(count)
        values, weights = dim_zero_cat(getattr(self, self._values)), dim_zero_cat(self.weights)
        # Not q * count: 0.29 * 100 is below 29.
        above = [int(Fraction(str(share)) * count) for share in self.q]
        found = upper_quantiles(values.view(len(weights), -1).t(), weights, above)
        return {f"q={share}": row for share, row in zip(self.q, found, strict=True)} if self._several else found[0]

    def rank_error(self, confidence: float = 0.99) -> float:
        """How far the share of activations above a threshold may be off q.

        With this confidence, the share strictly above the threshold is at most q and this, and the share that reaches
        it at least q less this. That holds for each unit and each q by itself, whatever the activations and their
        order.

        Args:
            confidence: above 0 and below 1.

        Returns:
            A share; 0 where the thresholds are exact, nan before the first update.

        Raises:
            RangeError: if the confidence is outside its range.
        """
        check_number("confidence", confidence, "above 0 and below 1", lambda value: 0 < value < 1)
        joined = self._is_synced
        with self.sync_context(
            self.dist_sync_fn, should_sync=self.sync_on_compute and not joined, should_unsync=not joined
        ):
            squares, count = float(self.squares), int(self.count)
        return math.sqrt(2 * math.log(2 / (1 - confidence)) * squares) / count if count else math.nan

    def _check_total(self, count: int) -> None:
        if self.total is not None and count > self.total:
            raise RangeError(
                got=f"{count} activations of each unit",
                needed=f"total={self.total} at most",
                fix="count images times h times w, of all processes together",
            )

    def _plan(self, units: int) -> tuple[int | None, int]:
        """How many of the largest values are kept, ``None`` for a sketch; and how many of any kind there may be."""
        fitting = self.max_bytes // (_BYTES * (units + 1))
        if self.total is not None:
            kept = int(Fraction(str(max(self.q))) * self.total) + 1
            if 2 * kept <= fitting:
                return kept, 2 * kept
            if not self.count:
                warnings.warn(
                    f"thresholds will be approximate, see rank_error(): exact ones need "
                    f"max_bytes={2 * kept * _BYTES * (units + 1)} for {units} units, or a smaller q",
                    stacklevel=2,
                )
        if fitting < SMALLEST_SKETCH:
            raise RangeError(
                got=f"max_bytes={self.max_bytes} for {units} units",
                needed=f"{SMALLEST_SKETCH * _BYTES * (units + 1)} or more",
                fix="raise it",
            )
        return None, fitting

    def _shrink(self, units: int, kept: int | None, limit: int, count: int) -> None:
        weights = dim_zero_cat(self.weights)
        values = dim_zero_cat(getattr(self, self._values)).view(len(weights), units).t().contiguous()
        if kept is not None:
            values, weights = values.topk(kept, 1).values, weights.new_ones(kept)
        else:
            # Coins of their own at every step and in every process, and the same ones when it is run again.
            rank = dist.get_rank() if in_process_group() else 0
            coins = torch.Generator().manual_seed(hash((self.seed, rank, count)))
            values, weights, squares = compact(values, weights, limit, coins)
            self.squares = self.squares + squares
        setattr(self, self._values, [values.t().flatten()])
        self.weights = [weights]
