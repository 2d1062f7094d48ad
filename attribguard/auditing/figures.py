"""The figures of an audit, from the rows of its images alone: so they are the same after an interruption."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from attribguard.auditing.bootstrap import Figure, estimate
from attribguard.auditing.rows import LOCALISATION, ImageRow
from attribguard.functional.ranks import as_ranks
from attribguard.probes.interval import Resampling, Units
from attribguard.probes.labels import as_groups
from attribguard.probes.sign_flip import sign_flip_test

__all__ = ["CLASSIFICATION", "Difference", "GroupFigure", "differences", "figures", "group_figures", "shares"]

CLASSIFICATION = {"accuracy": "accuracy", "auroc": "AUROC", "ap": "average precision"}
"""The measures of how often a network is right, and what they are called."""

MOST_CLASSES = 20  # with more, a resample of AUROC takes too long, and pictures of classes are of no use
LEAST_IN_GROUP, MOST_GROUPS = 10, 50
_RESAMPLES_OF_RANKS = 299

Floats = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class GroupFigure:
    """How often a network is right in one group.

    Attributes:
        group: its name.
        accuracy: there.
    """

    group: str
    accuracy: Figure


@dataclass(frozen=True)
class Difference:
    """How much more the model has of a figure than the baseline, on the same images.

    Attributes:
        figure: the mean difference and its interval.
        p_value: of a sign-flip permutation test, two-sided.
    """

    figure: Figure
    p_value: float


def figures(rows: Sequence[ImageRow], name: str, seed: int) -> dict[str, Figure]:
    """All figures of one network.

    AUROC and average precision are of class 1 where there are two classes, otherwise the mean of each class against
    the rest, over the classes that some images have and others have not; with more than 20 classes they are left out.

    Args:
        rows: the images.
        name: of the network.
        seed: of the intervals.
    """
    right, groups = _right(rows, name), _groups(rows)
    found = {"accuracy": _mean(right, groups, seed)}
    logits = np.array([row.seen[name].logits for row in rows], np.float64)
    targets = np.array([row.target for row in rows])
    if 0 < logits.shape[1] <= MOST_CLASSES:
        for key, measure in (("auroc", binary_auroc), ("ap", binary_average_precision)):
            statistic = _ranked(logits, targets, measure)
            found[key] = estimate(statistic, len(rows), groups, seed, _RESAMPLES_OF_RANKS)
    return found | {key: _mean(_where(rows, name, key), groups, seed) for key in LOCALISATION}


def differences(rows: Sequence[ImageRow], name: str, baseline: str, seed: int) -> dict[str, Difference]:
    """What the one network has more than the other, image by image.

    Args:
        rows: the images.
        name: of the network.
        baseline: of the other.
        seed: of intervals and tests.
    """
    groups = _groups(rows)
    numbers = as_groups(groups, len(groups)).numpy() if groups else None
    pairs = {"accuracy": (_right(rows, name), _right(rows, baseline))}
    pairs |= {key: (_where(rows, name, key), _where(rows, baseline, key)) for key in LOCALISATION}
    found = {}
    for key, (ours, theirs) in pairs.items():
        paired = ~np.isnan(ours - theirs)
        if paired.any():
            units = Units.of((ours - theirs)[paired], None if numbers is None else numbers[paired])
            p_value = sign_flip_test(units.sums, Resampling(seed=seed))
            found[key] = Difference(_mean(ours - theirs, groups, seed), p_value)
    return found


def group_figures(rows: Sequence[ImageRow], name: str, seed: int) -> list[GroupFigure]:
    """Accuracy by group, the worst first; none where groups are too many or too small to be more than patients.

    Args:
        rows: the images.
        name: of the network.
        seed: of the intervals.
    """
    counts = Counter(row.group for row in rows if row.group)
    large = [group for group, count in counts.items() if count >= LEAST_IN_GROUP]
    if len(large) < 2 or len(counts) > MOST_GROUPS:
        return []
    right = _right(rows, name)
    found = [
        GroupFigure(group, _mean(right[[row.group == group for row in rows]], [], seed)) for group in sorted(large)
    ]
    return sorted(found, key=lambda one: one.accuracy.value or 0.0)


def _mean(values: Floats, groups: Sequence[str], seed: int) -> Figure:
    defined = np.flatnonzero(~np.isnan(values))
    some = [groups[index] for index in defined.tolist()] if groups else []
    numbers = values[defined]
    return estimate(lambda index: float(numbers[index].mean()), len(numbers), some, seed)


def _ranked(logits: Floats, targets: Index, measure: Callable[..., torch.Tensor]) -> Callable[[Index], float]:
    margins = logits - np.array([np.delete(logits, k, 1).max(1) for k in range(logits.shape[1])]).T
    classes = [1] if logits.shape[1] == 2 else range(logits.shape[1])
    ranks = {k: as_ranks(torch.from_numpy(margins[:, k])) for k in classes}

    def statistic(index: Index) -> float:
        values = []
        for k in classes:
            truth = targets[index] == k
            if truth.any() and not truth.all():
                values.append(
                    float(measure(ranks[k][torch.from_numpy(index)], torch.from_numpy(truth.astype(np.int64))))
                )
        return float(np.mean(values)) if values else float("nan")

    return statistic


def _right(rows: Sequence[ImageRow], name: str) -> Floats:
    return np.array([float(row.seen[name].predicted == row.target) for row in rows])


def _where(rows: Sequence[ImageRow], name: str, key: str) -> Floats:
    values = [row.seen[name].where[key] for row in rows]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _groups(rows: Sequence[ImageRow]) -> list[str]:
    """Of each image, where all have one; a few large groups, such as hospitals, are not what images are drawn by."""
    groups = [row.group for row in rows]
    return groups if rows and all(groups) and len(set(groups)) > MOST_GROUPS else []


def shares(rows: Sequence[ImageRow]) -> Mapping[str, float]:
    """How many images there are, how many of them annotated, and the mean share of these images that is relevant.

    Args:
        rows: the images.
    """
    annotated = [row.share for row in rows if row.share > 0]
    mean = sum(annotated) / len(annotated) if annotated else 0.0
    return {"images": len(rows), "annotated": len(annotated), "relevant": mean}
