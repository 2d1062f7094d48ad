"""The demo's picture: test images, their masks, and where both networks look."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor

from attribguard.demo.scores import Scores
from attribguard.demo.splits import Split
from attribguard.masks import dilate

__all__ = ["Look", "draw"]

_CLASSES = ("two crosses", "one cross")
_WIDTH, _HEADER, _ROW, _FOOTER = 1200, 305, 322, 205  # pixels
_DPI = 100
_LARGE, _SMALL = 22, 18.5  # points: 31 and 26 pixels, of which a telephone 375 pixels wide leaves 10 and 8
# Okabe and Ito's colours, which colour-blind readers tell apart; each comes with a form or a word of its own.
_BLUE, _ORANGE, _RED = "#56B4E9", "#E69F00", "#D55E00"
_REGION: dict[str, Any] = {"color": _BLUE, "linewidth": 3}
_DISTRACTOR: dict[str, Any] = {"color": _ORANGE, "linewidth": 3.5, "linestyle": (0, (1.5, 1))}
_SALIENCY: dict[str, Any] = {
    "color": matplotlib.colormaps["magma"](0.8),
    "linestyle": "none",
    "marker": "s",
    "markersize": 14,
}


class Look(NamedTuple):
    """What one network makes of the images.

    Attributes:
        title: the network's name.
        scores: its figures.
        right: on how many test images its answer is right, and how many there are. An AUC asks for the order of the
            answers only, so that some can be wrong where it is 1.
        predicted: (N,) class indices for the images drawn.
        maps: (N, 1, H, W) saliency for them, 0 or more.
    """

    title: str
    scores: Scores
    right: tuple[int, int]
    predicted: Tensor
    maps: Tensor


def draw(examples: Split, pixels: int, looks: Sequence[Look]) -> bytes:
    """Draw a row for each image: image, mask, and each network's saliency with its answer.

    Every map is scaled by its own maximum: what counts is where a network looks, and logits have no unit.

    Args:
        examples: the images, a few.
        pixels: by which the masks were grown.
        looks: what the networks make of these images.

    Returns:
        A PNG file, 1200 pixels wide.
    """
    rows = len(examples.targets)
    height = _HEADER + rows * _ROW + _FOOTER
    # Whatever style users have set for their own pictures, this one is drawn for white paper.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI)
        grid = figure.subplots(rows, 2 + len(looks), squeeze=False)
        figure.subplots_adjust(
            left=0.012, right=0.988, wspace=0.05, hspace=0.2, top=1 - _HEADER / height, bottom=_FOOTER / height
        )
        titles = ["test image", "mask", *(f"saliency,\n{look.title}" for look in looks)]
        for axis, title in zip(grid[0], titles, strict=True):
            axis.set_title(title, fontsize=_LARGE, fontweight="bold", pad=10)
        for row, axes in enumerate(grid):
            _draw_row(axes, Split(*(part[row] for part in examples)), pixels, looks, row)
        _write_header(figure, looks)
        _write_legend(figure, pixels)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _draw_row(axes: Sequence[Any], example: Split, pixels: int, looks: Sequence[Look], row: int) -> None:
    image, mask = example.images[0].numpy(), example.masks[0].numpy()
    region = dilate(example.masks, pixels)[0].numpy()
    truth = int(example.targets)
    _show(axes[0], image, "gray", _CLASSES[truth])
    _show(axes[1], 0.4 * region + 0.6 * mask, "gray", "")
    for axis, look in zip(axes[2:], looks, strict=True):
        answer = int(look.predicted[row])
        # The mark says it too, for those who do not see the colour.
        verdict = ("✓ right: ", "black") if answer == truth else ("✗ wrong: ", _RED)
        _show(axis, look.maps[row, 0].numpy(), "magma", f"{verdict[0]}{_CLASSES[answer]}", verdict[1])
    for axis in axes:
        axis.add_collection(LineCollection(_outline(region > 0), **_REGION))
        lines, columns = np.nonzero((image > 0) & (mask == 0))
        if len(lines):
            # One pixel of air, so that the frame does not hide what it frames.
            corner = (columns.min() - 1.5, lines.min() - 1.5)
            width, height = float(np.ptp(columns)) + 3, float(np.ptp(lines)) + 3
            axis.add_patch(Rectangle(corner, width, height, fill=False, **_DISTRACTOR))


def _show(axis: Any, picture: NDArray[Any], colors: str, caption: str, caption_color: str = "black") -> None:
    axis.imshow(picture, cmap=colors, vmin=0, vmax=picture.max(), interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.set_xlabel(caption, fontsize=_SMALL, color=caption_color, labelpad=6)


def _outline(region: NDArray[np.bool_]) -> list[list[tuple[float, float]]]:
    """The edges between pixels inside and outside, as pairs of points (x, y) in pixels."""
    framed = np.pad(region, 1)
    lines = []
    for y, x in np.argwhere(framed[1:] != framed[:-1]):
        lines.append([(x - 1.5, y - 0.5), (x - 0.5, y - 0.5)])
    for y, x in np.argwhere(framed[:, 1:] != framed[:, :-1]):
        lines.append([(x - 0.5, y - 1.5), (x - 0.5, y - 0.5)])
    return lines


def _write_header(figure: Figure, looks: Sequence[Look]) -> None:
    title = (
        "Two crosses or one? In training a small box gives the answer\n"
        "away; in these test images it stands on the other side."
    )
    lines = [
        f"{look.title}: test AUC {look.scores.test_auc:.3f} ({look.right[0]} of {look.right[1]} right), "
        f"{look.scores.inside:.0%} of saliency inside the mask"
        for look in looks
    ]
    pixel = 1 / (figure.get_figheight() * _DPI)
    figure.text(0.012, 1 - 18 * pixel, title, fontsize=24, fontweight="bold", va="top", linespacing=1.25)
    figure.text(0.012, 1 - 118 * pixel, "\n".join(lines), fontsize=20, va="top", linespacing=1.3)


def _write_legend(figure: Figure, pixels: int) -> None:
    entries = {
        f"the mask, grown by {pixels} pixels: what ActDiff lets the network use": Line2D([], [], **_REGION),
        "the distractor: the box whose side gave the answer away": Line2D([], [], **_DISTRACTOR),
        "saliency: bright where a change of the image moves the answer most": Line2D([], [], **_SALIENCY),
    }
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="lower left",
        bbox_to_anchor=(0, 0),
        frameon=False,
        fontsize=_SMALL,
        handlelength=1.5,
    )
