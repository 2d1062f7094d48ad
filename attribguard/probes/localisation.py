"""How much of an attribution lies in the annotated region, over a data set: the metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from attribguard.errors import RangeError
from attribguard.functional.cam import CamNormalization
from attribguard.functional.localisation import energy_inside, iobb, ior, pointing_game, soft_iobb, soft_ior
from attribguard.functional.localisation_checks import check_thresholds, check_tolerance
from attribguard.probes.estimate import LocalisationSummary
from attribguard.probes.localisation_metric import LocalisationMetric

__all__ = ["EnergyInside", "IoBB", "IoR", "PointingGame", "SoftIoBB", "SoftIoR"]


class SoftIoBB(LocalisationMetric):
    """How much of the annotated region the map covers, the mean over images (Li et al., Section 4.2).

    See :func:`attribguard.functional.soft_iobb` for one image, and
    :class:`attribguard.probes.localisation_metric.LocalisationMetric` for the arguments. Several boxes of an image
    are one region, their union; the paper does not say.

    Example:
        >>> import torch
        >>> metric = SoftIoBB(normalize="minmax", n_resamples=99)
        >>> attribution = torch.tensor([[[0.0, 2.0, 4.0]], [[0.0, 1.0, 4.0]], [[1.0, 0.0, 0.0]]])
        >>> metric.update(attribution, [[[1, 0, 3, 1]], [[0, 0, 2, 1]], []], groups=["a", "b", "b"])
        >>> metric.compute()
        tensor(0.4375)
        >>> summary = metric.summary()
        >>> summary.n, summary.skipped, summary.groups, summary.normalize
        (2, 1, 2, 'minmax')
    """

    def measure(self, attribution: Tensor, region: Tensor) -> Tensor:
        """(N,), see :func:`attribguard.functional.soft_iobb`."""
        return soft_iobb(attribution, region)


class SoftIoR(LocalisationMetric):
    """How much of the map lies in the annotated region, the mean over images (Li et al., Section 4.2).

    See :func:`attribguard.functional.soft_ior` for one image; otherwise as :class:`SoftIoBB`.

    Example:
        >>> import torch
        >>> metric = SoftIoR(normalize="max")
        >>> metric(torch.tensor([[[-1.0, 1.0, 3.0]]]), torch.tensor([[2, 0, 3, 1]]))
        tensor(0.7500)
    """

    def measure(self, attribution: Tensor, region: Tensor) -> Tensor:
        """(N,), see :func:`attribguard.functional.soft_ior`."""
        return soft_ior(attribution, region)


class PointingGame(LocalisationMetric):
    """On how many images the map's maximum lies in the region (Zhang et al. 2018, Excitation Backprop).

    See :func:`attribguard.functional.pointing_game` for one image. The paper averages the accuracies of the classes;
    here each image counts once, and ``summary().per_class`` has the classes.

    Args:
        tolerance: in pixels; the paper has 15.
        normalize: of no effect on where a maximum is, but ``"max"`` leaves out maps without a positive value.
        **kwargs: as in :class:`attribguard.probes.localisation_metric.LocalisationMetric`.

    Raises:
        RangeError: if an argument is outside its range.

    Example:
        >>> import torch
        >>> metric = PointingGame()
        >>> metric.update(torch.tensor([[[0.0, 1.0, 3.0]], [[0.0, 1.0, 3.0]]]), [[[2, 0, 3, 1]], [[0, 0, 1, 1]]])
        >>> metric.compute()
        tensor(0.5000)
    """

    def __init__(self, tolerance: int = 0, *, normalize: CamNormalization = "none", **kwargs: Any) -> None:
        super().__init__(normalize=normalize, settings={"tolerance": check_tolerance(tolerance)}, **kwargs)
        self.tolerance = tolerance

    def measure(self, attribution: Tensor, region: Tensor) -> Tensor:
        """(N,), see :func:`attribguard.functional.pointing_game`."""
        return pointing_game(attribution, region, self.tolerance)


class EnergyInside(LocalisationMetric):
    """The share of the positive attribution in the region, the mean over images (Wang et al. 2020, Score-CAM).

    See :func:`attribguard.functional.energy_inside` for one image.

    Args:
        normalize: ``"none"`` and ``"max"`` give the same, for the share does not depend on the scale; with
            ``"minmax"`` it is :class:`SoftIoR`.
        **kwargs: as in :class:`attribguard.probes.localisation_metric.LocalisationMetric`.

    Example:
        >>> import torch
        >>> metric = EnergyInside()
        >>> metric(torch.tensor([[[-2.0, 1.0, 3.0]]]), torch.tensor([[[1, 1, 0]]]))
        tensor(0.2500)
    """

    def __init__(self, *, normalize: CamNormalization = "none", **kwargs: Any) -> None:
        super().__init__(normalize=normalize, **kwargs)

    def measure(self, attribution: Tensor, region: Tensor) -> Tensor:
        """(N,), see :func:`attribguard.functional.energy_inside`."""
        return energy_inside(attribution, region)


class _Thresholded(LocalisationMetric):
    """A number for each threshold."""

    def __init__(self, thresholds: Sequence[float], *, normalize: CamNormalization = "minmax", **kwargs: Any) -> None:
        levels = check_thresholds(thresholds)
        if min(levels) <= 0 or len(set(levels)) < len(levels):
            raise RangeError(
                got=f"thresholds={thresholds!r}", needed="different numbers above 0", fix="0 marks the whole image"
            )
        self.thresholds, self.columns = levels, (len(levels),)
        super().__init__(normalize=normalize, settings={"thresholds": levels}, **kwargs)

    @property
    def names(self) -> list[str]:
        """The key of each threshold's result."""
        return [f"{type(self).__name__}@{threshold:g}" for threshold in self.thresholds]

    @abstractmethod
    def measure(self, attribution: Tensor, region: Tensor) -> Tensor:
        """(N, T)."""

    def compute(self) -> dict[str, Tensor]:
        """The mean at each threshold.

        Returns:
            Name to 0-d tensor, such as ``"IoBB@0.5"``; nan where there is no image with a value.
        """
        return dict(zip(self.names, super().compute(), strict=True))

    def summary(self) -> dict[str, LocalisationSummary]:
        """The mean at each threshold with its interval, what was left out, and each class by itself.

        Returns:
            Name to summary, with the names of :meth:`compute`.
        """
        return {
            name: column.summary(name, self.normalize, self.resampling)
            for name, column in zip(self.names, self.per_image().columns(), strict=True)
        }


class IoBB(_Thresholded):
    """The share of the region in which the map reaches a threshold, for comparison with detection papers.

    See :func:`attribguard.functional.iobb` for one image (Li et al., Section 4.2). ``compute`` gives a dict with one
    0-d tensor for each threshold, and ``summary`` one with their summaries.

    Args:
        thresholds: different numbers above 0, in the unit of the normalised map.
        normalize: as in :class:`attribguard.probes.localisation_metric.LocalisationMetric`.
        **kwargs: likewise.

    Raises:
        RangeError: if an argument is outside its range.

    Example:
        >>> import torch
        >>> IoBB([0.25, 0.75])(torch.tensor([[[0.0, 1.0, 3.0]]]), torch.tensor([[[0, 1, 1]]]))
        {'IoBB@0.25': tensor(1.), 'IoBB@0.75': tensor(0.5000)}
    """

    def measure(self, attribution: Tensor, region: Tensor) -> Tensor:
        """(N, T), see :func:`attribguard.functional.iobb`."""
        return iobb(attribution, region, self.thresholds)


class IoR(_Thresholded):
    """The share of the pixels at or above a threshold that lies in the region, for comparison with detection papers.

    See :func:`attribguard.functional.ior` for one image; otherwise as :class:`IoBB`. An image in which no pixel reaches
    a threshold is left out there and counted, which only ``normalize="none"`` makes possible for thresholds up to 1.

    Example:
        >>> import torch
        >>> IoR([0.25, 0.75])(torch.tensor([[[0.0, 1.0, 3.0]]]), torch.tensor([[[0, 1, 0]]]))
        {'IoR@0.25': tensor(0.5000), 'IoR@0.75': tensor(0.)}
    """

    def measure(self, attribution: Tensor, region: Tensor) -> Tensor:
        """(N, T), see :func:`attribguard.functional.ior`."""
        return ior(attribution, region, self.thresholds)
