"""Whether one network does better than another on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.probes.estimate import Estimate
from attribguard.probes.interval import Resampling, Units
from attribguard.probes.labels import Labels, as_groups
from attribguard.probes.localisation_metric import LocalisationMetric
from attribguard.probes.sign_flip import sign_flip_test

__all__ = ["Comparison", "compare"]

Floats = NDArray[np.float64]
Values = Tensor | Sequence[float] | Floats


@dataclass(frozen=True, kw_only=True)
class Comparison(Estimate):
    """The paired difference of two networks: ``value`` is the mean of a - b, ``skipped`` the pairs with a nan.

    Attributes:
        p_value: of the sign-flip test, two-sided; nan without a pair.
        mean_a: of the first network, over the same pairs.
        mean_b: of the second.
        metric: what was compared, where metrics were given.
        normalize: how the maps were normalised, where metrics were given.
        resampling: confidence level, number of resamples and of random flips, seed.
    """

    p_value: float
    mean_a: float
    mean_b: float
    metric: str | None
    normalize: str | None
    resampling: Resampling

    def __str__(self) -> str:
        low, high = self.interval
        what = "" if self.metric is None else f"{self.metric} (normalize={self.normalize}): "
        by = "" if self.groups is None else f" in {self.groups} groups"
        return (
            f"{what}{self.mean_a:.3f} - {self.mean_b:.3f} = {self.value:+.3f} "
            f"({100 * self.resampling.interval:g} % interval {low:+.3f} to {high:+.3f}, p = {self.p_value:.2g}), "
            f"n={self.n}{by}, skipped {self.skipped}"
        )


def compare(
    a: Values | LocalisationMetric,
    b: Values | LocalisationMetric,
    groups: Labels | None = None,
    *,
    interval: float = 0.95,
    n_resamples: int = 9999,
    seed: int = 0,
) -> Comparison:
    """Compare two networks by their numbers on the same images.

    The difference is taken image by image. Its interval is the BCa bootstrap of the mean difference, with whole groups
    drawn (:func:`attribguard.probes.interval.mean_interval`); its p value that of a sign-flip permutation test, in
    which the networks change places for whole groups (:func:`attribguard.probes.sign_flip.sign_flip_test`).

    The test asks whether the networks could change places; the interval, how far apart they are. Neither covers the
    randomness of training: two networks trained alike from different seeds can differ significantly.

    Args:
        a: (N,) numbers, or a localisation metric that has seen the images.
        b: the same of the other network, in the same order; metrics of one kind and normalisation.
        groups: (N,) what the images belong to, such as a patient: whole numbers or strings. By default the groups that
            the metrics were given; without any, each image stands for itself.
        interval: confidence level.
        n_resamples: of the bootstrap, and of random sign flips.
        seed: of both.

    Returns:
        Difference, interval, p value and counts. A pair in which one number is nan is left out.

    Raises:
        ShapeError: if the numbers are not (N,) and as many, or a metric has several thresholds.
        TypeMismatchError: if one is a metric and the other is not, or they are no numbers.
        RangeError: if a number is infinite, an argument outside its range, or the metrics differ in kind, settings,
            classes or groups.

    Example:
        >>> result = compare([0.8, 0.7, 0.9, 0.6, 0.8, 0.7], [0.5, 0.6, 0.6, 0.5, 0.4, 0.5])
        >>> round(result.value, 3), result.p_value
        (0.233, 0.03125)
    """
    resampling = Resampling(interval, n_resamples, seed)
    metric = normalize = None
    if isinstance(a, LocalisationMetric) or isinstance(b, LocalisationMetric):
        a, b, groups, metric, normalize = _of_metrics(a, b, groups)
    first, second = _numbers("a", a), _numbers("b", b)
    if len(first) != len(second):
        raise ShapeError(
            got=f"{len(first)} and {len(second)} numbers", needed="one pair an image", fix="measure the same images"
        )
    numbered = None if groups is None else as_groups(groups, len(first)).cpu().numpy()
    difference = first - second
    paired = ~np.isnan(difference)
    units = Units.of(difference[paired], None if numbered is None else numbered[paired])
    some = bool(paired.any())
    return Comparison(
        **vars(Estimate.of(difference, numbered, resampling)),
        p_value=sign_flip_test(units.sums, resampling),
        mean_a=float(first[paired].mean()) if some else np.nan,
        mean_b=float(second[paired].mean()) if some else np.nan,
        metric=metric,
        normalize=normalize,
        resampling=resampling,
    )


def _of_metrics(a: Any, b: Any, groups: Labels | None) -> tuple[Tensor, Tensor, Labels | None, str, str]:
    if not (isinstance(a, LocalisationMetric) and isinstance(b, LocalisationMetric)):
        raise TypeMismatchError(
            got=f"{type(a).__name__} and {type(b).__name__}", needed="two metrics, or numbers for both", fix="pass both"
        )
    kinds = [f"{metric.label}, normalize={metric.normalize}" for metric in (a, b)]
    if kinds[0] != kinds[1]:
        raise RangeError(got=" and ".join(kinds), needed="the same measure twice", fix="measure both alike")
    if a.columns:
        raise ShapeError(
            got=f"{a.label}, several numbers an image",
            needed="one number an image",
            fix="compare one threshold: metric.per_image().values[:, 0]",
        )
    held = a.per_image(), b.per_image()
    for name in ("classes", "groups"):
        of_a, of_b = (getattr(one, name) for one in held)
        if of_a is not None and of_b is not None and (len(of_a) != len(of_b) or bool((of_a.cpu() != of_b.cpu()).any())):
            raise RangeError(
                got=f"metrics that were given different {name}",
                needed="the same images in the same order",
                fix="update both in one loop",
            )
    if groups is None:
        groups = next((one.groups for one in held if one.groups is not None), None)
    return held[0].values, held[1].values, groups, a.label, a.normalize


def _numbers(name: str, values: Any) -> Floats:
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise TypeMismatchError(
            got=f"{name} of {type(values).__name__}", needed="numbers (N,)", fix="pass a tensor"
        ) from None
    if numbers.ndim != 1:
        raise ShapeError(got=f"{name} of shape {numbers.shape}", needed="(N,)", fix="pass one number an image")
    if np.isinf(numbers).any():
        raise RangeError(got=f"{name} with an infinite number", needed="finite numbers or nan", fix="check the measure")
    return numbers
