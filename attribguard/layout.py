"""Feature maps as (N, C, h, w), whatever the network's own layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from attribguard.errors import LayerError

__all__ = ["Features", "to_nchw"]

_MAX_PREFIX_TOKENS = 16


def to_nchw(x: Tensor, channel_axis: int | None, image_size: tuple[int, int], name: str = "") -> Tensor:
    """View features as a map: channels first, class and register tokens left out.

    Args:
        x: (N, C), (N, C, h, w), (N, h, w, C), (N, L, C) or (N, C, L).
        channel_axis: which axis holds the channels, where the network told; ``None`` if it is not known.
        image_size: (H, W) of the images, of which the map is a coarser grid.
        name: of the layer, for the error.

    Returns:
        (N, C, h, w), a view; (N, C, 1, 1) for features without spatial extent.

    Raises:
        LayerError: if the axes cannot be told apart, or tokens form no grid over the image.

    Example:
        >>> to_nchw(torch.zeros(2, 50, 8), 2, (224, 224)).shape
        torch.Size([2, 8, 7, 7])
    """
    if x.dim() == 2:
        return x[:, :, None, None]
    if x.dim() == 4:
        if channel_axis is None:
            channel_axis = _axis_by_shape(x.shape[1:], image_size)
        if channel_axis in (1, 3):
            return x if channel_axis == 1 else x.permute(0, 3, 1, 2)
    if x.dim() == 3 and channel_axis in (1, 2):
        tokens = x if channel_axis == 2 else x.transpose(1, 2)
        grid = _grid(tokens.shape[1], image_size)
        if grid is not None:
            height, width = grid
            patches = tokens[:, tokens.shape[1] - height * width :]
            return patches.reshape(len(x), *grid, -1).permute(0, 3, 1, 2)
    raise LayerError(
        got=f"features of shape {tuple(x.shape)} at layer {name!r} for images of {image_size[0]} x {image_size[1]}",
        needed="a map whose channel axis is known",
        fix="read them from `features.raw`, or name another layer",
    )


def _axis_by_shape(shape: torch.Size, image_size: tuple[int, int]) -> int | None:
    """The one reading in which the map has the image's aspect ratio, to one cell; ``None`` if both have or none."""

    def fits(height: int, width: int) -> bool:
        return abs(height * image_size[1] - width * image_size[0]) <= max(image_size)

    first, last = fits(shape[1], shape[2]), fits(shape[0], shape[1])
    return None if first == last else (1 if first else 3)


def _grid(tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """The grid of whole patches that uses all tokens but the fewest at the front (class and register tokens)."""
    height, width = image_size
    for prefix in range(min(_MAX_PREFIX_TOKENS, tokens - 1) + 1):
        patches = tokens - prefix
        for lines in range(1, patches + 1):
            columns = patches // lines
            if lines * columns == patches and height % lines == 0 and width * lines == height * columns:
                return lines, columns
    return None


class Features(Mapping[str, Tensor]):
    """The recorded layers of one pass, by name, in the order in which they ran; each read as (N, C, h, w).

    Half-precision features come out as float32: squares of float16 activations underflow.

    Args:
        tensors: name to tensor, as the network made it.
        axes: name to channel axis, where it is known.
        image_size: (H, W).
    """

    def __init__(self, tensors: Mapping[str, Tensor], axes: Mapping[str, int], image_size: tuple[int, int]) -> None:
        self.raw = {name: x.float() if x.dtype in (torch.float16, torch.bfloat16) else x for name, x in tensors.items()}
        self._axes, self._image_size = axes, image_size

    def __getitem__(self, name: str) -> Tensor:
        """One layer as (N, C, h, w)."""
        return to_nchw(self.raw[name], self._axes.get(name), self._image_size, name)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.raw)

    def __len__(self) -> int:
        """How many layers there are."""
        return len(self.raw)

    def only(self, names: tuple[str, ...]) -> Features:
        """The same features, of these layers alone, in this order."""
        return Features({name: self.raw[name] for name in names}, self._axes, self._image_size)
