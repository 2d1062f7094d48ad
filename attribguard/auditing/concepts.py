"""Which units of a network's last map know what is annotated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from attribguard.auditing.pools import FeaturePool
from attribguard.probes.activation_quantile import ActivationQuantile
from attribguard.probes.concept_count import ConceptCount
from attribguard.probes.unit_alignment import UnitAlignment

__all__ = ["Concepts", "UnitFigure", "count_units"]

_TOP = 0.005  # share of a unit's activations above its threshold, as in network dissection
_SHOWN = 12


@dataclass(frozen=True)
class UnitFigure:
    """One unit.

    Attributes:
        unit: its channel.
        alignment: overlap of its strongest activations with the regions, intersection over union.
        images: on how many annotated images it has a concept.
    """

    unit: int
    alignment: float
    images: int


@dataclass(frozen=True)
class Concepts:
    """Concepts of the units of the last map.

    Attributes:
        disjoint: concepts an annotated image.
        unique: units with one, an image.
        units: how many units there are.
        images: annotated images that were counted.
        best: the units that overlap most, in falling order.
    """

    disjoint: float
    unique: float
    units: int
    images: int
    best: list[UnitFigure]


def count_units(pool: FeaturePool) -> Concepts:
    """Count in what was kept; thresholds are those of the same features.

    Args:
        pool: with one image or more.
    """
    size = (pool.regions[0].shape[-2], pool.regions[0].shape[-1])
    parts = [
        (torch.stack(pool.features[i : i + 50]), torch.stack(pool.regions[i : i + 50]))
        for i in range(0, len(pool.features), 50)
    ]
    quantile = ActivationQuantile(q=_TOP)
    for features, _ in parts:
        quantile.update(features)
    thresholds = quantile.compute().reshape(-1)
    count = ConceptCount(thresholds, image_size=size)
    alignment: Any = UnitAlignment(thresholds, image_size=size)
    for features, regions in parts:
        count.update(features, regions)
        alignment.update(features, regions)
    overlap = alignment.compute().reshape(-1).nan_to_num()
    images = count.summary().unique_per_unit
    best = overlap.argsort(descending=True, stable=True)[:_SHOWN].tolist()
    means = count.compute()
    return Concepts(
        round(float(means["disjoint"]), 6),
        round(float(means["unique"]), 6),
        len(overlap),
        len(pool.features),
        [UnitFigure(unit, round(float(overlap[unit]), 6), int(images[unit])) for unit in best],
    )
