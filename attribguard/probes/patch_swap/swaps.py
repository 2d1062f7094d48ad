"""The images of a scan: every source with every patch replaced by every donor's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribguard.corruption import corrupt
from attribguard.probes.patch_swap.changed_windows import Box
from attribguard.probes.patch_swap.patch_grid import PatchGrid
from attribguard.probes.patch_swap.scan_arguments import Mode

__all__ = ["Alike", "Swaps", "make_donors", "to_picture"]


class Alike(NamedTuple):
    """Images that follow on each other and differ from one source in one patch.

    Attributes:
        images: how many.
        source: (1, C, H, W).
        patch: where they differ from it.
    """

    images: int
    source: Tensor
    patch: Box


@dataclass(frozen=True)
class Swaps:
    """Sources whose patches are replaced, numbered source by source, position by position, donor by donor.

    Images that follow on each other thus differ in one patch, mostly.

    Attributes:
        sources: (S, C, H, W).
        donors: (S or 1, N, C, H, W), where patches are taken from, for each source or for all.
        grid: where the patches lie.
    """

    sources: Tensor
    donors: Tensor
    grid: PatchGrid

    @property
    def shape(self) -> tuple[int, int, int]:
        """S, N and P."""
        return len(self.sources), self.donors.shape[1], len(self.grid)

    def __len__(self) -> int:
        return torch.Size(self.shape).numel()

    def images(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Make some of them.

        Args:
            start: number of the first.
            stop: number behind the last.

        Returns:
            (stop - start, C, H, W), and the number of each one's source.
        """
        _, donors, positions = self.shape
        number = torch.arange(start, min(stop, len(self)), device=self.sources.device)
        source, position, donor = number // (positions * donors), number // donors % positions, number % donors
        donated = self.donors.expand(len(self.sources), *self.donors.shape[1:])[source, donor]
        return torch.where(self.grid.inside(position), donated, self.sources[source]), source

    def alike(self, start: int, stop: int) -> list[Alike]:
        """What is known of these images: which of them share source and position.

        Args:
            start: number of the first.
            stop: number behind the last.
        """
        _, donors, positions = self.shape
        found, side = [], self.grid.patch
        while start < min(stop, len(self)):
            end = min((start // donors + 1) * donors, stop)
            source, position = divmod(start // donors, positions)
            top, left = self.grid.corner(position)
            patch = Box(slice(top, top + side), slice(left, left + side))
            found.append(Alike(end - start, self.sources[source : source + 1], patch))
            start = end
        return found


def make_donors(mode: Mode, sources: Tensor, targets: Tensor | None) -> Tensor:
    """What patches are replaced by.

    Args:
        mode: ``"swap"``: the targets' own; ``"blank"``: 0; ``"blur"``: those of the blurred source.
        sources: (S, C, H, W).
        targets: (N, C, H, W), read by the first mode.

    Returns:
        (S or 1, N, C, H, W), like the sources.
    """
    if mode == "swap" and targets is not None:
        return targets.detach().to(sources)[None]
    if mode == "blank":
        return torch.zeros_like(sources[:1])[None]
    everywhere = sources.new_zeros(len(sources), 1, *sources.shape[2:])
    return corrupt(sources, everywhere, "blur")[:, None]


def to_picture(image: Tensor) -> NDArray[np.uint8]:
    """An image for a person to look at.

    Args:
        image: (C, H, W), of any range.

    Returns:
        (H, W, 3) for three channels, otherwise (H, W), their mean; stretched to 0 to 255.
    """
    values = image.float().cpu()
    values = values.permute(1, 2, 0) if len(image) == 3 else values.mean(0)
    values = values - values.min()
    picture: NDArray[np.uint8] = (255 * values / values.max().clamp(min=1e-12)).round().byte().numpy()
    return picture
