"""What the measures of single units share: maps, thresholds and regions that are checked and brought to one size."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from attribguard.errors import RangeError, ShapeError, TypeMismatchError, check_choice
from attribguard.functional.checks import is_whole
from attribguard.masks import resize
from attribguard.probes.regions import Region, as_region

__all__ = ["Size", "UnitMetric", "as_unit_maps"]

Size = Literal["map", "input"]
Thresholds = Tensor | Mapping[Hashable, Tensor]

# Cells looked at in one go: 32 MB of enlarged maps.
_CELLS_AT_ONCE = 2**23


def as_unit_maps(features: Tensor) -> Tensor:
    """Refuse what are no feature maps.

    Args:
        features: (N, U, h, w) floating, finite: channels first. :func:`attribguard.layout.to_nchw` brings channels-last
            maps and tokens there.

    Returns:
        The same as float32, without a graph.

    Raises:
        TypeMismatchError: if it is no floating-point tensor.
        ShapeError: if it is not (N, U, h, w) with at least one unit and one cell.
        RangeError: if it is not finite somewhere.
    """
    if not isinstance(features, Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, Tensor) else type(features).__name__
        raise TypeMismatchError(got=f"features of {kind}", needed="a floating-point tensor", fix="pass a layer's maps")
    if features.dim() != 4 or 0 in features.shape[1:]:
        raise ShapeError(
            got=f"features of shape {tuple(features.shape)}",
            needed="(N, U, h, w)",
            fix="use attribguard.layout.to_nchw for channels-last maps and tokens",
        )
    maps = features.detach().float()
    # The extremes are nan or infinite where anything is, and need no mask of all cells.
    if maps.numel() and not all(bool(extreme.isfinite()) for extreme in maps.aminmax()):
        row = int((~maps.isfinite().flatten(1).all(1)).nonzero()[0])
        raise RangeError(
            got=f"features that are nan, infinite or too large for float32 in row {row}",
            needed="finite values",
            fix="look for the overflow where they were computed, or leave the row out",
        )
    return maps


class UnitMetric(Metric):
    """Units' maps above thresholds, held against annotated regions; subclass it.

    Args:
        thresholds: (U,), one for each unit, or a mapping from names to such, as
            :meth:`attribguard.probes.ActivationQuantile.compute` gives: then there is a result for
            each name.
        size: where maps and regions meet. ``"map"``: on the network's own grid, to which the region is brought.
            ``"input"``: at the images' size, to which the maps are enlarged bilinearly before the threshold is applied,
            as network dissection does (Bau et al. 2017). That takes some hundred times as long for maps of 7 x 7 and
            images of 224 x 224. Li et al. do not say which they used.
        image_size: (H, W) of the images, in whose pixels regions are given; that of the maps by default.
        settings: what else makes this another metric. Together with the thresholds, ``size`` and ``image_size`` it is
            part of the states' names, so that a ``MetricCollection`` never takes two metrics for one.
        **kwargs: those of every ``torchmetrics.Metric``.

    Attributes:
        names: of the thresholds; empty where only one tensor was given.
        thresholds: (Q, U) float32, on the CPU.
        label: its name with the settings.

    Raises:
        TypeMismatchError: if thresholds are no floating-point tensors.
        ShapeError: if they are not (U,), or not of one length.
        RangeError: if there is none, one is not finite, or another argument is outside its range.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    without_region: Tensor

    def __init__(
        self,
        thresholds: Thresholds,
        *,
        size: Size = "map",
        image_size: tuple[int, int] | None = None,
        settings: Mapping[str, object] | None = None,
        **kwargs: Any,
    ) -> None:
        names, values = _as_thresholds(thresholds)
        check_choice("size", size, ("map", "input"))
        if image_size is not None:
            image_size = _check_size(image_size)
        elif size == "input":
            raise RangeError(got='size="input" alone', needed="image_size=(H, W)", fix="give the images' size")
        super().__init__(**kwargs)
        # No buffer: a network that holds the metric and is cast to half precision would round it.
        self.names, self.thresholds, self.size, self.image_size = names, values, size, image_size
        shown = {**(settings or {}), "size": size, "image_size": image_size}
        self._settings = ", ".join(f"{key}={value}" for key, value in shown.items())
        self.label = f"{type(self).__name__}({self._settings})"
        digest = hashlib.blake2b(repr(names).encode() + values.numpy().tobytes(), digest_size=8).hexdigest()
        self._key = f"{self.label} above {digest}".replace(".", "p")
        self.add_state("without_region", torch.tensor(0), dist_reduce_fx="sum")

    def _read(self, features: Tensor, region: Region) -> tuple[Tensor, Tensor, Tensor]:
        """Check a batch: maps (N, U, h, w), shares (N, H, W) of each cell in the region, (N,) bool with a region."""
        maps = as_unit_maps(features)
        if maps.shape[1] != self.thresholds.shape[1]:
            raise ShapeError(
                got=f"features of {maps.shape[1]} units for thresholds of {self.thresholds.shape[1]}",
                needed="one threshold for each unit",
                fix="take the thresholds from the same layer",
            )
        size = self.image_size or tuple(maps.shape[2:])
        masks = as_region(region, maps.new_zeros(1).expand(len(maps), *size))
        annotated = masks.flatten(1).any(1)
        shares = resize(masks[:, None], (maps.shape[2], maps.shape[3]))[:, 0] if self.size == "map" else masks.float()
        return maps, shares, annotated

    def _active(self, maps: Tensor, size: torch.Size) -> Iterator[tuple[int, slice, Tensor]]:
        """Go through thresholds and units: their places, and (N, u, H, W) bool where the maps are above."""
        n, units = maps.shape[:2]
        step = max(1, _CELLS_AT_ONCE // max(1, n * size[0] * size[1]))
        limits = self.thresholds.to(maps.device)
        for start in range(0, units, step):
            some = slice(start, start + step)
            part = maps[:, some]
            if part.shape[2:] != size:
                part = F.interpolate(part, size, mode="bilinear", align_corners=False)
            for index, limit in enumerate(limits):
                yield index, some, part > limit[some, None, None]

    def _named(self, name: str, results: Tensor) -> dict[str, Tensor]:
        """A result for each of the Q thresholds, under this name."""
        if not self.names:
            return {name: results[0]}
        return {f"{name}@{key}": result for key, result in zip(self.names, results, strict=True)}

    def extra_repr(self) -> str:
        """The settings, but for the thresholds."""
        return self._settings


def _as_thresholds(thresholds: Thresholds) -> tuple[tuple[str, ...], Tensor]:
    several = isinstance(thresholds, Mapping)
    names = tuple(map(str, thresholds)) if isinstance(thresholds, Mapping) else ()
    values = list(thresholds.values()) if isinstance(thresholds, Mapping) else [thresholds]
    for value in values:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeMismatchError(
                got=f"thresholds of {kind}",
                needed="a floating-point tensor, or a mapping from names to such",
                fix="pass ActivationQuantile's result",
            )
    if (several and len(set(names)) < max(1, len(values))) or not all(bool(v.isfinite().all()) for v in values):
        raise RangeError(
            got=f"thresholds {list(names)}" if several else "thresholds that are nan or infinite",
            needed="finite numbers, and different names",
            fix="pass ActivationQuantile's result",
        )
    # torchmetrics makes a number of every result of one element.
    values = [torch.atleast_1d(value) for value in values]
    shapes = {tuple(value.shape) for value in values}
    if len(shapes) > 1 or any(len(shape) != 1 or shape == (0,) for shape in shapes):
        raise ShapeError(
            got=f"thresholds of shape {' and '.join(map(str, sorted(shapes)))}",
            needed="(U,), one number for each unit",
            fix="pass a mapping from names to such for several thresholds a unit",
        )
    return names, torch.stack(values).detach().float().cpu()


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    sides = size if isinstance(size, Sequence) else ()
    if len(sides) != 2 or not all(is_whole(side, 1) for side in sides):
        raise RangeError(got=f"image_size={size!r}", needed="(H, W), whole numbers above 0", fix="use images.shape[2:]")
    return sides[0], sides[1]
