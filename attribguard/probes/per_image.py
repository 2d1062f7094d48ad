"""One number an image, with what the image belongs to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from attribguard.errors import RangeError
from attribguard.probes.estimate import Estimate, LocalisationSummary
from attribguard.probes.interval import Resampling

__all__ = ["PerImage", "check_always"]


@dataclass(frozen=True)
class PerImage:
    """What a localisation metric holds, in the order of the updates.

    Attributes:
        values: (N,) for the N images with a region, or (N, T) for T thresholds; nan where not defined.
        classes: (N,) int64, or ``None`` where none were given.
        groups: likewise.
        without_region: how many more images there were.

    Raises:
        RangeError: if classes or groups were given for some images only.
    """

    values: Tensor
    classes: Tensor | None
    groups: Tensor | None
    without_region: int

    def __post_init__(self) -> None:
        for name, given in (("classes", self.classes), ("groups", self.groups)):
            if given is not None:
                check_always(name, len(given) == len(self.values), True)

    def estimates(self, resampling: Resampling) -> tuple[Estimate, dict[int, Estimate]]:
        """The mean of (N,) values, over all images and for each class.

        Args:
            resampling: how intervals are drawn.

        Returns:
            The one of all images, and class index to its own.
        """
        values = self.values.cpu().double().numpy()
        groups = None if self.groups is None else self.groups.cpu().numpy()
        classes = np.zeros(0, np.int64) if self.classes is None else self.classes.cpu().numpy()
        per_class = {}
        for index in np.unique(classes).tolist():
            rows = classes == index
            per_class[index] = Estimate.of(values[rows], None if groups is None else groups[rows], resampling)
        return Estimate.of(values, groups, resampling, left_out=self.without_region), per_class

    def columns(self) -> list[PerImage]:
        """The columns of (N, T) values, each with the same images."""
        return [dataclasses.replace(self, values=column) for column in self.values.unbind(1)]

    def summary(self, metric: str, normalize: str, resampling: Resampling) -> LocalisationSummary:
        """What :meth:`estimates` finds, to be reported.

        Args:
            metric: what the values are.
            normalize: how the maps were normalised.
            resampling: how intervals are drawn.
        """
        whole, per_class = self.estimates(resampling)
        return LocalisationSummary(
            **vars(whole),
            metric=metric,
            normalize=normalize,
            without_region=self.without_region,
            per_class=per_class,
            resampling=resampling,
        )


def check_always(name: str, before: bool, now: bool) -> None:
    """Refuse labels that are given for some images only.

    Args:
        name: of the labels.
        before: whether they were given so far.
        now: whether they are given.

    Raises:
        RangeError: if the two differ.
    """
    if before != now:
        raise RangeError(
            got=f"{name} for some images and not for others", needed="for all or none", fix=f"give {name} every time"
        )
