"""What the localisation metrics share: updates, states, sums over processes, intervals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from attribguard.errors import check_choice
from attribguard.functional.attribution_maps import check_attribution, normalize_attribution
from attribguard.functional.cam import CAM_NORMALIZATIONS, CamNormalization
from attribguard.probes.interval import Resampling
from attribguard.probes.labels import Labels
from attribguard.probes.per_image import PerImage
from attribguard.probes.per_image_state import PerImageState
from attribguard.probes.regions import Region, as_region

__all__ = ["LocalisationMetric"]


class LocalisationMetric(PerImageState):
    """The mean over images of one number an image; subclass it and write :meth:`measure`.

    A ``torchmetrics.Metric``: ``update``, ``compute``, ``reset``, ``forward``, ``MetricCollection``, several processes.
    Images without a region are counted, and so are those whose number is not defined; neither enters the mean.

    The state is one number for each image that has a region, and its class and group where they are given, because a
    bootstrap needs them: 4 to 20 bytes an image. In several processes the states are joined, and the results equal
    those of one process. A sampler that repeats images to make the shares even, as ``DistributedSampler`` does, has
    them counted twice.

    Args:
        normalize: how each map is brought to [0, 1], ``"minmax"``, ``"max"`` or ``"none"``, see
            :func:`attribguard.functional.normalize_attribution`. It can decide which of two networks looks better, so
            it stands in every summary.
        interval: confidence level of the intervals in :meth:`summary`.
        n_resamples: of the bootstrap.
        seed: of the bootstrap.
        settings: what else makes this another metric, such as a tolerance. They and ``normalize`` are part of the
            state's name, so that a ``MetricCollection`` never takes two metrics for one because their first batches
            agree.
        **kwargs: those of every ``torchmetrics.Metric``.

    Attributes:
        normalize: as given.
        resampling: level, number and seed.
        columns: the shape of one image's values; () for a single number.
        label: its name with the settings.

    Raises:
        RangeError: if an argument is outside its range.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0
    columns: tuple[int, ...] = ()

    def __init__(
        self,
        *,
        normalize: CamNormalization = "minmax",
        interval: float = 0.95,
        n_resamples: int = 9999,
        seed: int = 0,
        settings: Mapping[str, object] | None = None,
        **kwargs: Any,
    ) -> None:
        check_choice("normalize", normalize, CAM_NORMALIZATIONS)
        resampling = Resampling(interval, n_resamples, seed)
        super().__init__(**kwargs)
        self.normalize, self.resampling = normalize, resampling
        self.label = type(self).__name__
        if settings:
            self.label += f"({', '.join(f'{name}={value}' for name, value in settings.items())})"
        name = f"values of {self.label}, {normalize}".replace(".", "p")
        self._keep_per_image(name, torch.zeros(0, *self.columns))
        self.add_state("without_region", torch.tensor(0), dist_reduce_fx="sum")

    @abstractmethod
    def measure(self, attribution: Tensor, region: Tensor) -> Tensor:
        """Measure some images.

        Args:
            attribution: (N, H, W), normalised.
            region: (N, H, W) bool, none of them empty.

        Returns:
            (N,) or (N, T), as ``columns`` says; nan where not defined.
        """

    def update(
        self,
        attribution: Tensor,
        region: Region,
        *,
        classes: Tensor | Sequence[int] | None = None,
        groups: Labels | None = None,
    ) -> None:
        """Take in a batch.

        Args:
            attribution: (N, H, W) floating, finite, for instance class activation maps.
            region: masks of that size, boxes or lists of boxes, see :func:`attribguard.probes.regions.as_region`.
            classes: (N,) class indices, for results class by class. An image with several findings comes once for each,
                with the finding's own map and boxes, and with its group.
            groups: (N,) what the image belongs to, such as a patient: whole numbers or strings. Intervals are then over
                groups.

        Raises:
            ShapeError: if sizes or numbers of images differ.
            TypeMismatchError: if an argument is of the wrong kind.
            RangeError: if a map is not finite, a box or mask is bad, or classes or groups are given for some batches
                and not for others.
        """
        maps = check_attribution(attribution).detach()
        masks = as_region(region, maps)
        annotated = masks.flatten(1).any(1)
        labels = self._read_labels(annotated, classes, groups)
        if bool(annotated.any()):
            values = self.measure(normalize_attribution(maps[annotated], self.normalize), masks[annotated])
            self._hold(values, labels)
        self.without_region = self.without_region + (~annotated).sum().to(self.device)

    def compute(self) -> Any:
        """The mean.

        Returns:
            A 0-d tensor; nan where no image has a region and a value.
        """
        return dim_zero_cat(getattr(self, self._values)).nanmean(0)

    def per_image(self) -> PerImage:
        """What is held of each image with a region, of all processes one after the other.

        Raises:
            RangeError: if classes or groups were given for some images and not for others.
        """
        with self._joined() as held:
            return held

    def summary(self) -> Any:
        """The mean with its interval, what was left out, and each class by itself.

        Returns:
            A :class:`attribguard.probes.estimate.LocalisationSummary`.

        Raises:
            RangeError: if classes or groups were given for some images and not for others.
        """
        return self.per_image().summary(self.label, self.normalize, self.resampling)

    def extra_repr(self) -> str:
        """How the maps are normalised."""
        return f"normalize={self.normalize}"

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Draw results of ``compute``, as every ``torchmetrics.Metric`` does; ``summary().plot()`` draws intervals.

        Args:
            val: a result or several; the current one by default.
            ax: matplotlib axes to draw on; new ones by default.

        Returns:
            The figure and the axes.
        """
        return self._plot(val, ax)
