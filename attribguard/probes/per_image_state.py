"""A metric's state of some numbers an image, with the class and the group of each, in one process or in several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from attribguard.probes.labels import Labels, as_classes, as_groups
from attribguard.probes.per_image import PerImage, check_always

__all__ = ["PerImageState"]


class PerImageState(Metric):
    """Keeps numbers of each image that has a region, because a bootstrap needs them; subclass it.

    A subclass adds the state ``without_region``, calls :meth:`_keep_per_image` in its constructor, and in ``update``
    :meth:`_read_labels` before it computes anything and :meth:`_hold` at the end.
    """

    classes: list[Tensor] | Tensor
    groups: list[Tensor] | Tensor
    without_region: Tensor

    def _keep_per_image(self, name: str, empty: Tensor) -> None:
        """Add the states: ``name`` is that of the values, ``empty`` those of no image, (0,) or (0, T)."""
        self._values = name
        integers = torch.zeros(0, dtype=torch.int64)
        # torchmetrics sends an empty list as one axis of floats, which fits neither indices nor several columns.
        self._empty = {name: empty, "classes": integers, "groups": integers}
        for state in self._empty:
            self.add_state(state, [], dist_reduce_fx="cat")

    def _read_labels(
        self, annotated: Tensor, classes: Tensor | Sequence[int] | None, groups: Labels | None
    ) -> dict[str, Tensor]:
        """Classes and groups of the images that are annotated, where they are given; refuses them for some only."""
        n = len(annotated)
        given = {"classes": None if classes is None else as_classes(classes, n)}
        given["groups"] = None if groups is None else as_groups(groups, n)
        if bool(annotated.any()) and _any(getattr(self, self._values)):
            for name, labels in given.items():
                check_always(name, _any(getattr(self, name)), labels is not None)
        return {name: labels.to(annotated.device)[annotated] for name, labels in given.items() if labels is not None}

    def _hold(self, values: Tensor, labels: dict[str, Tensor]) -> None:
        """Append the values of the images that are annotated, and their labels."""
        for name, part in {self._values: values, **labels}.items():
            getattr(self, name).append(part.to(self.device, self._empty[name].dtype))

    @contextmanager
    def _joined(self) -> Iterator[PerImage]:
        """What is held of each image, of all processes one after the other, whose states are joined meanwhile."""
        joined = self._is_synced
        with self.sync_context(
            self.dist_sync_fn, should_sync=self.sync_on_compute and not joined, should_unsync=not joined
        ):
            values, *labels = (dim_zero_cat(getattr(self, name)) for name in self._empty)
            classes, groups = (some if len(some) else None for some in labels)
            yield PerImage(values, classes, groups, int(self.without_region))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Join the states of all processes, as ``torchmetrics`` does, also where one has seen no image.

        Args:
            *args: passed on.
            **kwargs: passed on.
        """
        for name, empty in self._empty.items():
            state = getattr(self, name)
            if isinstance(state, list) and not state:
                state.append(empty.to(self.device))
        super().sync(*args, **kwargs)


def _any(state: list[Tensor]) -> bool:
    return any(map(len, state))
