"""Draw the pictures of docs/phantoms.md: a few items of each data set with known truth, and their masks.

    python examples/draw_phantoms.py --out docs/images --fashion ../shared/data/fashion-mnist

takes seconds. Without `--fashion`, a folder with Fashion-MNIST's own four files, the picture of `DecoyFashion` is left
out. Shown is always the first slice of its kind.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib
import typer
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from attribguard.data import Crosses, DecoyFashion
from attribguard.data.phantoms import (
    HEMATOMA_SIGNS,
    LESIONS,
    HematomaPhantom,
    LesionPhantom,
    OrganPhantom,
    SitesPhantom,
)
from attribguard.errors import AttribGuardError
from attribguard.whole_files import check_writable, write_files

SIZE, SLICES = 128, 400
PANEL, GAP, TOP, DPI = 150, 8, 44, 100  # pixels but for DPI
LINE = "#ff9f1c"
CLOTHES = "T-shirt trousers pullover dress coat sandal shirt sneaker bag boot".split()
Item = dict[str, Any]


class Panel(NamedTuple):
    """One column: what is shown, two lines above it, and boxes (x0, y0, x1, y1) instead of an outline."""

    caption: str
    image: Tensor  # (1, H, W)
    mask: Tensor | None  # (1, H, W); none where there is no annotation
    boxes: Tensor | None = None  # (B, 4)


def first(data: Iterable[Item], wanted: Callable[[Item], bool]) -> Item:
    """The first item that is as wanted."""
    return next(item for item in data if wanted(item))


def panel(item: Item, caption: str) -> Panel:
    """Image and mask of one item."""
    return Panel(caption, item["image"], item["mask"] if item["annotated"] else None)


def hematomas() -> list[Panel]:
    seen, unseen = HematomaPhantom("train", SLICES, SIZE), HematomaPhantom("unseen", SLICES, SIZE)
    panels = []
    for number, sign in enumerate(HEMATOMA_SIGNS):
        target = int(number == 0)
        item = first(seen, lambda item, n=number, t=target: item["sign"] == n and item["shortcut"] == t)
        panels.append(panel(item, f"class {target}, hospital {item['hospital']}\n{sign}"))
    item = first(unseen, lambda item: item["sign"] == 0 and item["shortcut"] == 0)
    return [*panels, panel(item, f"class 1, hospital {item['hospital']}\n{HEMATOMA_SIGNS[0]}")]


def lesions() -> list[Panel]:
    panels = []
    for kind, name in enumerate(LESIONS):
        item = first(LesionPhantom("train", SLICES, SIZE), lambda item, k=kind: item["target"][k] == 1)
        boxes = item["boxes"][: int(item["target"].sum())]
        others = len(boxes) - 1
        panels.append(Panel(f"{name}\n" + (f"and {others} more" if others else ""), item["image"], None, boxes))
    return panels


def organs() -> list[Panel]:
    data, panels = OrganPhantom("train", SLICES, SIZE), []
    for target, stomach in ((1, 1), (0, 0), (1, 0), (0, 1)):
        item = first(data, lambda item, t=target, s=stomach: (item["target"], item["shortcut"]) == (t, s))
        caption = f"class {target}, {'pancreas' if target else 'none'}\n{'stomach' if stomach else 'no stomach'}"
        panels.append(panel(item, caption))
    return panels


def sites() -> list[Panel]:
    panels = []
    for split, target, site in (("train", 1, 1), ("train", 0, 0), ("test", 1, 0), ("test", 0, 1)):
        data = SitesPhantom(split, SLICES, SIZE)
        item = first(data, lambda item, t=target, s=site: (item["target"], item["shortcut"]) == (t, s))
        panels.append(panel(item, f"{split}, site {site}\nclass {target}, {'bullae' if target else 'none'}"))
    return panels


def crosses() -> list[Panel]:
    panels = []
    for split in ("train", "test"):
        data = Crosses(split, n=20)
        for target, name in enumerate(("two crosses", "one cross")):
            i = data.targets.tolist().index(target)
            panels.append(Panel(f"{split}\nclass {target}, {name}", data.images[i], data.masks[i]))
    return panels


def decoys(folder: Path) -> list[Panel]:
    panels = []
    for kind, rows in (("class", range(3)), ("random", (0,)), ("none", (0,))):
        data = DecoyFashion("train", folder, kind, n=10)
        for i in rows:
            caption = f'kind="{kind}"\nclass {data.targets[i]}, {CLOTHES[data.targets[i]]}'
            panels.append(Panel(caption, data.images[i] / 255, data.masks[i]))
    return panels


def draw(panels: list[Panel]) -> bytes:
    """Images above, and below them what is relevant, all else dimmed: a PNG file."""
    width, height = len(panels) * (PANEL + GAP) + GAP, TOP + 2 * (PANEL + GAP)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        for column, shown in enumerate(panels):
            left = GAP + column * (PANEL + GAP)
            figure.text((left + PANEL / 2) / width, 1 - TOP / 2 / height, shown.caption, fontsize=9, **CENTRED)
            for row in range(2):
                bottom = GAP + (1 - row) * (PANEL + GAP)
                axis = figure.add_axes((left / width, bottom / height, PANEL / width, PANEL / height))
                axis.set(xticks=[], yticks=[])
                picture = shown.image[0].float().numpy()
                if row and shown.mask is not None:
                    mask = shown.mask[0].float().numpy()
                    picture = picture * (0.35 + 0.65 * mask)
                    axis.contour(mask, [0.5], colors=LINE, linewidths=1)
                axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                if row and shown.boxes is not None:
                    for x0, y0, x1, y1 in shown.boxes.tolist():
                        # A pixel's centre lies at its number, so its left edge half a pixel before.
                        axis.add_patch(
                            Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=LINE, linewidth=1.2)
                        )
                elif row and shown.mask is None:
                    axis.text(0.5, 0.04, "not annotated", fontsize=8, color=LINE, ha="center", transform=axis.transAxes)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


CENTRED = {"ha": "center", "va": "center", "linespacing": 1.3}


def main(
    out: Annotated[Path, typer.Option(help="Folder to write to, made if need be.")] = Path("out"),
    fashion: Annotated[Path | None, typer.Option(help="Folder of Fashion-MNIST's own four files.")] = None,
) -> None:
    """Draw a few items of each data set with known truth."""
    columns: dict[str, Callable[[], list[Panel]]] = {
        "hematoma": hematomas,
        "lesions": lesions,
        "organs": organs,
        "sites": sites,
        "crosses": crosses,
    }
    if fashion is not None:
        columns["decoy-fashion"] = lambda: decoys(fashion)
    names = {name: f"phantom-{name}.png" for name in columns}
    try:
        check_writable(out, tuple(names.values()))
        write_files(out, {names[name]: draw(panels()) for name, panels in columns.items()})
    except (AttribGuardError, OSError) as error:
        typer.echo(f"draw_phantoms: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"wrote {', '.join(names.values())} to {out}")


if __name__ == "__main__":
    typer.run(main)
