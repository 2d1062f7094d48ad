"""What the localisation metrics share: updates, states, sums over processes, intervals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from attribguard.errors import check_choice
from attribguard.functional.attribution_maps import check_attribution, normalize_attribution
from attribguard.functional.cam import CAM_NORMALIZATIONS, CamNormalization
from attribguard.probes.interval import Resampling
from attribguard.probes.labels import Labels, as_classes, as_groups
from attribguard.probes.per_image import PerImage, check_always
from attribguard.probes.regions import Region, as_region

__all__ = ["LocalisationMetric"]


class LocalisationMetric(Metric):
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

    classes: list[Tensor] | Tensor
    groups: list[Tensor] | Tensor
    without_region: Tensor

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
        self._values = f"values of {self.label}, {normalize}".replace(".", "p")
        for name in (self._values, "classes", "groups"):
            self.add_state(name, [], dist_reduce_fx="cat")
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
        labels = {
            "classes": None if classes is None else as_classes(classes, len(maps)),
            "groups": None if groups is None else as_groups(groups, len(maps)),
        }
        annotated = masks.flatten(1).any(1)
        if bool(annotated.any()):
            held = getattr(self, self._values)
            if _any(held):
                for name, given in labels.items():
                    check_always(name, _any(getattr(self, name)), given is not None)
            values = self.measure(normalize_attribution(maps[annotated], self.normalize), masks[annotated])
            held.append(values.to(self.device, torch.float32))
            for name, given in labels.items():
                if given is not None:
                    getattr(self, name).append(given.to(annotated.device)[annotated].to(self.device))
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
        joined = self._is_synced
        with self.sync_context(
            self.dist_sync_fn, should_sync=self.sync_on_compute and not joined, should_unsync=not joined
        ):
            values, *labels = (dim_zero_cat(getattr(self, name)) for name in (self._values, "classes", "groups"))
            without_region = int(self.without_region)
        classes, groups = (given if len(given) else None for given in labels)
        return PerImage(values, classes, groups, without_region)

    def summary(self) -> Any:
        """The mean with its interval, what was left out, and each class by itself.

        Returns:
            A :class:`attribguard.probes.estimate.LocalisationSummary`.

        Raises:
            RangeError: if classes or groups were given for some images and not for others.
        """
        return self.per_image().summary(self.label, self.normalize, self.resampling)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Join the states of all processes, as ``torchmetrics`` does, also where one has seen no image.

        Args:
            *args: passed on.
            **kwargs: passed on.
        """
        # torchmetrics sends an empty list as one axis of floats, which fits neither indices nor thresholds.
        for name, empty in (
            (self._values, torch.zeros(0, *self.columns)),
            ("classes", torch.zeros(0, dtype=torch.int64)),
            ("groups", torch.zeros(0, dtype=torch.int64)),
        ):
            state = getattr(self, name)
            if isinstance(state, list) and not state:
                state.append(empty.to(self.device))
        super().sync(*args, **kwargs)

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


def _any(state: list[Tensor]) -> bool:
    return any(map(len, state))
