"""Which modules give a network's last map at each scale: what a decoder reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from attribguard.errors import LayerError
from attribguard.layers import resolve_layers
from attribguard.layout import to_nchw
from attribguard.survey import Survey

__all__ = ["Level", "find_pyramid", "named_pyramid"]


class Level(NamedTuple):
    """A feature map that a decoder reads.

    Attributes:
        point: the place's name.
        channels: how many there are.
        size: (h, w), for the images of the dry run.
        octave: how often the image was halved until there, to the nearest whole number.
    """

    point: str
    channels: int
    size: tuple[int, int]
    octave: int


def find_pyramid(survey: Survey) -> tuple[Level, ...]:
    """The last map at each scale, down to the coarsest; the finest first.

    A map inside a module that halves its input, such as the first convolution of a ResNet stage, belongs to what comes
    out of that module; it is taken only where its scale has no other. Maps without spatial extent (pooled features,
    squeeze-and-excitation) and those whose channel axis the operators did not tell are left out. A side branch that
    looks at the image more coarsely than the network proper is taken for its end: name the layers there.

    Args:
        survey: of the network.

    Returns:
        The levels; empty where the network has no such map.
    """
    levels = {point: level for point in survey.points if (level := _candidate(point, survey)) is not None}
    given_out = [level for point, level in levels.items() if not point.endswith(":input")]
    if not given_out:
        return ()
    coarsest = max(level.octave for level in given_out)
    # What a network draws on its way up again is not what its classifier reads.
    end = max(i for i, level in enumerate(given_out) if level.octave == coarsest)
    passing = _inside_of_halving_modules(levels, given_out)
    chosen: dict[int, Level] = {}
    for level in given_out[: end + 1]:
        kept = chosen.get(level.octave)
        if kept is None or level.point not in passing or kept.point in passing:
            chosen[level.octave] = level
    return tuple(chosen[octave] for octave in sorted(chosen))


def named_pyramid(layers: Sequence[str], survey: Survey) -> tuple[Level, ...]:
    """The levels at these layers, the finest first.

    Args:
        layers: names or patterns, as a penalty's.
        survey: of the network.

    Raises:
        LayerError: if a layer did not run, gives no map, or a map without spatial extent.
    """
    levels = [_level(point, survey) for point in resolve_layers(tuple(layers), survey)]
    for level in levels:
        if survey.shapes[level.point][0] != 2:  # of the dry run's two images
            raise LayerError(
                got=f"features at layer {level.point!r} with other than one entry an image",
                needed="a map of each image",
                fix="name a layer outside of what works on windows or patches of the images",
            )
        if math.prod(level.size) == 1:
            raise LayerError(
                got=f"features without spatial extent at layer {level.point!r}",
                needed="a feature map that a decoder can draw from",
                fix="name a layer before the pooling",
            )
    return tuple(sorted(levels, key=lambda level: -math.prod(level.size)))


def _level(point: str, survey: Survey) -> Level:
    _, _, height, width = survey.shapes[":input"]
    # A tensor without memory: only its shape is asked.
    features = torch.empty(survey.shapes[point], device="meta")
    _, channels, h, w = to_nchw(features, survey.axes.get(point), (height, width), point).shape
    # Of the side that was halved more often: a short one cannot become less than a pixel.
    return Level(point, channels, (h, w), round(math.log2(max(height / h, width / w))))


def _candidate(point: str, survey: Survey) -> Level | None:
    shape = survey.shapes[point]
    _, _, height, width = survey.shapes[":input"]
    if point in ("", ":input") or point not in survey.axes or len(shape) not in (3, 4) or shape[0] != 2:
        return None
    try:
        level = _level(point, survey)
    except LayerError:
        return None
    h, w = level.size
    # One cell of difference is what padding or its absence makes.
    in_proportion = abs(h * width - w * height) <= max(height, width)
    return level if h * w > 1 and h <= height and w <= width and in_proportion else None


def _inside_of_halving_modules(levels: dict[str, Level], given_out: list[Level]) -> set[str]:
    """The maps that a module makes before it halves them, once, and gives out something coarser."""
    inside: set[str] = set()
    for module, end in levels.items():
        start = levels.get(f"{module}:input")
        if start is None or start.octave == end.octave:
            continue
        within = [level for level in given_out if level.point.startswith(f"{module}.")]
        if {level.octave for level in within} <= {start.octave, end.octave}:
            inside |= {level.point for level in within if level.octave != end.octave}
    return inside
