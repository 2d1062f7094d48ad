"""What an audit keeps of the images that stream by: a few of each class to scan, and features to count units in."""

from __future__ import annotations

from torch import Tensor

from attribguard.auditing.batches import AuditBatch

__all__ = ["FeaturePool", "ScanPool"]

SCAN_CLASSES, SCAN_IMAGES = 3, 24
_FEATURE_IMAGES, _FEATURE_BYTES = 500, 2**28


class ScanPool:
    """The first images of the classes that come first."""

    def __init__(self) -> None:
        self.images: dict[int, list[Tensor]] = {}
        self.passed_over: set[int] = set()

    def add(self, batch: AuditBatch) -> None:
        """Take what is still needed of a batch.

        Args:
            batch: the images.
        """
        for image, target in zip(batch.images, batch.targets.tolist(), strict=True):
            if target not in self.images and len(self.images) == SCAN_CLASSES:
                self.passed_over.add(target)
            elif len(kept := self.images.setdefault(target, [])) < SCAN_IMAGES:
                kept.append(image.cpu())

    @property
    def items(self) -> list[tuple[Tensor, int]]:
        """Images with their classes, class by class."""
        return [(image, target) for target in sorted(self.images) for image in self.images[target]]


class FeaturePool:
    """Features and regions of the first annotated images, as many as a quarter of a gigabyte holds, 500 at most."""

    def __init__(self) -> None:
        self.features: list[Tensor] = []
        self.regions: list[Tensor] = []
        self.full = False

    def add(self, features: Tensor, regions: Tensor) -> None:
        """Take what is still needed of a batch.

        Args:
            features: (N, U, h, w).
            regions: (N, H, W) bool.
        """
        most = min(_FEATURE_IMAGES, max(1, _FEATURE_BYTES // (4 * features[0].numel())))
        for maps, region in zip(features, regions, strict=True):
            if len(self.features) < most and bool(region.any()):
                self.features.append(maps.float().cpu())
                self.regions.append(region.cpu())
        self.full = len(self.features) >= most
