"""How alike several networks' features are, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attribguard.errors import LayerError, ShapeError
from attribguard.layers import resolve_layers
from attribguard.probes.linear_cka import LinearCKA
from attribguard.probes.subject import Subject
from attribguard.pyramid import find_pyramid

__all__ = ["LayerSimilarity"]


class LayerSimilarity:
    """Linear CKA between the features of several guards for the same images.

    Args:
        subjects: the guards, while they are measured.
        layers: names or patterns of modules; ``None`` for the last map at each scale.
        pool: whether an image is one row, the mean over its map, instead of a row a position.

    Attributes:
        points: the places that are compared; none before the first images.
    """

    def __init__(self, subjects: Sequence[Subject], layers: tuple[str, ...] | None, pool: bool) -> None:
        self._subjects, self._layers, self._pool = subjects, layers, pool
        self.points: tuple[str, ...] = ()
        self._cka: list[LinearCKA] = []

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Add images.

        Args:
            x: (N, C, H, W), on any device.

        Raises:
            LayerError: if the guards have not the same layers, or one gives no map.
            ShapeError: if maps that are not pooled differ in size.
        """
        self.points = self.points or self._common_points(x)
        of_each = [self._maps(subject, x) for subject in self._subjects]
        for i, maps in enumerate(zip(*of_each, strict=True)):
            sizes = [tuple(features.shape[-2:]) for features in maps]
            if not self._pool and len(set(sizes)) > 1:
                raise ShapeError(
                    got=f"maps of {sizes} at layer {self.points[i]!r}",
                    needed="one size, to compare them position by position",
                    fix="pass pool=True, which compares their means",
                )
            if len(self._cka) == i:
                self._cka.append(LinearCKA([features.shape[1] for features in maps], maps[0].device))
            self._cka[i].update([self._rows(features) for features in maps])

    def compute(self) -> Tensor:
        """The similarities.

        Returns:
            (L, G, G) float64, on the CPU.
        """
        return torch.stack([cka.compute().cpu() for cka in self._cka])

    def _common_points(self, x: Tensor) -> tuple[str, ...]:
        found = []
        for subject in self._subjects:
            survey = subject.network.look(x.to(subject.device))
            levels = find_pyramid(survey) if self._layers is None else ()
            found.append(tuple(level.point for level in levels) or resolve_layers(self._layers or (), survey))
        if not found[0] or any(points != found[0] for points in found):
            raise LayerError(
                got=f"guards in which the layers to compare are {found}",
                needed="the same in each, one or more",
                fix="name layers that all of them have: layers=...",
            )
        return found[0]

    def _maps(self, subject: Subject, x: Tensor) -> list[Tensor]:
        network, x = subject.network, x.to(subject.device)
        network.capture.install(network.model, self.points)
        return network.maps(network.record_only(x, self.points), self.points, x)

    def _rows(self, features: Tensor) -> Tensor:
        if self._pool:
            return features.mean((2, 3), dtype=torch.float64)
        return features.permute(0, 2, 3, 1).flatten(0, 2)
