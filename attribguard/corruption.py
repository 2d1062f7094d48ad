"""Corrupt what lies outside the mask, so that a network can be shown an image without its context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from attribguard.errors import RangeError, ShapeError
from attribguard.masks import check_pixels, dilate, inside

__all__ = ["Corruption", "CorruptionMode", "corrupt"]

CorruptionMode = Literal["shuffle", "zero", "mean", "blur"] | Callable[[Tensor, Tensor], Tensor]


def _shuffle(x: Tensor, keep: Tensor, generator: Generator | None) -> Tensor:
    _, channels, height, width = x.shape
    keep = keep.flatten(1)
    where = generator.device if generator is not None else x.device
    keys = torch.rand(keep.shape, generator=generator, device=where).to(x.device)
    # Sorting random keys with the inside pushed to the end lists the outside positions in random order; the rank of
    # an outside position then picks from that list. No step depends on how many positions there are, so that a
    # compiled graph takes the same one for every mask.
    order = keys.masked_fill(keep, 2.0).argsort(dim=1)
    rank = (~keep).long().cumsum(dim=1).sub(1).clamp(min=0)
    source = torch.where(keep, torch.arange(height * width, device=x.device), order.gather(1, rank))
    return x.flatten(2).gather(2, source[:, None].expand(-1, channels, -1)).view_as(x)


def _mean(x: Tensor, keep: Tensor, generator: Generator | None) -> Tensor:
    outside = ~keep
    # The sum of a float16 image overflows.
    total = torch.where(outside, x, 0).sum(dim=(2, 3), keepdim=True, dtype=_exact(x))
    mean = total / outside.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return torch.where(keep, x, _of_type(mean, x))


def _blur(x: Tensor, keep: Tensor, generator: Generator | None) -> Tensor:
    height, width = x.shape[-2:]
    sigma = min(height, width) / 8
    # Reflected padding must be narrower than the image.
    radius = min(int(4 * sigma + 0.5), height - 1, width - 1)
    offsets = torch.arange(-radius, radius + 1, device=x.device, dtype=_exact(x))
    weights = torch.softmax(-0.5 * (offsets / sigma).square(), dim=0)
    planes = F.pad(x.to(_exact(x)), (radius, radius, radius, radius), mode="reflect").flatten(0, 1).unsqueeze(1)
    # One line across and one down: a square of these weights would be a hundred times the work at 224 x 224.
    blurred = F.conv2d(F.conv2d(planes, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return torch.where(keep, x, _of_type(blurred.view_as(x), x))


def _exact(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _of_type(values: Tensor, x: Tensor) -> Tensor:
    return (values if x.is_floating_point() else values.round()).to(x.dtype)


def _zero(x: Tensor, keep: Tensor, generator: Generator | None) -> Tensor:
    return torch.where(keep, x, 0)


_MODES: dict[str, Callable[[Tensor, Tensor, Generator | None], Tensor]] = {
    "shuffle": _shuffle,
    "zero": _zero,
    "mean": _mean,
    "blur": _blur,
}


def _check_mode(mode: CorruptionMode) -> None:
    if not callable(mode) and mode not in _MODES:
        raise RangeError(
            got=f"corruption {mode!r}",
            needed="one of " + ", ".join(map(repr, _MODES)) + ", or a callable (x, mask) -> x",
            fix="choose one of them",
        )


def corrupt(x: Tensor, mask: Tensor, mode: CorruptionMode = "shuffle", generator: Generator | None = None) -> Tensor:
    """Destroy what lies outside the mask and keep the inside as it is.

    ``"shuffle"`` is the corruption of Viviano et al., Section 3: the pixels outside the mask change places, which
    keeps every intensity and destroys every shape. Positions are permuted jointly over the channels, so that RGB
    colours survive (the published code fails on colour images). Classify-Masked training, the paper's control, is
    ``"zero"`` on the training images.

    Args:
        x: (N, C, H, W) images.
        mask: (N, 1, H, W) or (N, H, W), 1 = relevant; soft masks count as relevant from 0.5 on.
        mode: ``"shuffle"``: permute the pixels outside; ``"zero"``: set them to 0; ``"mean"``: to their own mean, per
            image and channel; ``"blur"``: replace them by the image blurred with a standard deviation of one eighth
            of its shorter side; or a callable ``(x, mask) -> (N, C, H, W)`` that is given the mask as (N, 1, H, W).
        generator: where ``"shuffle"`` draws from; the global random state by default, as dropout does.

    Returns:
        (N, C, H, W), a new tensor of the type of ``x``.

    Raises:
        ShapeError: if the shapes do not fit.
        RangeError: if the mode is unknown.

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 2, 2)
        >>> corrupt(x, torch.tensor([[[1, 0], [0, 0]]]), "mean")
        tensor([[[[0., 2.],
                  [2., 2.]]]])
    """
    if x.dim() != 4:
        raise ShapeError(got=f"images of shape {tuple(x.shape)}", needed="(N, C, H, W)", fix="add the missing axes")
    given = tuple(mask.shape)
    if mask.dim() == 3:
        mask = mask.unsqueeze(1)
    if mask.shape != (x.shape[0], 1, *x.shape[2:]):
        raise ShapeError(
            got=f"a mask of shape {given} for images of shape {tuple(x.shape)}",
            needed=f"({x.shape[0]}, 1, {x.shape[2]}, {x.shape[3]}) or ({x.shape[0]}, {x.shape[2]}, {x.shape[3]})",
            fix="resize the mask to the image, one mask an image",
        )
    if callable(mode):
        corrupted = mode(x.clone(), mask)  # a copy, for it may work in place
        if (corrupted.shape, corrupted.dtype, corrupted.device) != (x.shape, x.dtype, x.device):
            raise ShapeError(
                got=f"corrupted images of shape {tuple(corrupted.shape)}, {corrupted.dtype} on {corrupted.device}",
                needed=f"{tuple(x.shape)}, {x.dtype} on {x.device}, as the images",
                fix="let the corruption keep shape, type and device",
            )
        return corrupted
    _check_mode(mode)
    return _MODES[mode](x, inside(mask), generator)


@dataclass(frozen=True)
class Corruption:
    """How the images of a second forward pass are corrupted. Equal corruptions of one step share one pass.

    Args:
        mode: as in :func:`attribguard.corrupt`.
        dilate: pixels by which the mask grows first, so that the region keeps some context.

    Raises:
        RangeError: if the mode is unknown or ``dilate`` is not a whole number, 0 or more.
    """

    mode: CorruptionMode = "shuffle"
    dilate: int = 0

    def __post_init__(self) -> None:
        """Check both, so that a typing error shows where it was made."""
        _check_mode(self.mode)
        check_pixels(self.dilate)

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Corrupt (N, C, H, W) images outside their dilated (N, 1, H, W) masks."""
        return corrupt(x, dilate(mask, self.dilate), self.mode)
