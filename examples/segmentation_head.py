"""Two auxiliary heads: a classifier of drawn lesions learns to segment them and to draw the image again.

Class 0 has a smooth outline, class 1 a jagged one; thin dark hairs lie across both. All images train the classifier
and the reconstruction, but only some come with a segmentation. The heads read the classifier's own feature maps, and
`guard(x)` never runs them.

    python examples/segmentation_head.py --out out --seed 0

needs one core of a CPU for about a minute, and writes `out/result.json` and `out/predictions.png`.

The images are drawn here and not taken from `attribguard.data.Crosses`: those give the class away by a box that changes
sides in the test images, which is what penalties are for; and of black and white there is little to draw again.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import matplotlib
import torch
import torch.nn.functional as F
import typer
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from attribguard import Guard, ReconstructionHead, SegmentationHead, wrap
from attribguard.errors import AttribGuardError, RangeError
from attribguard.whole_files import check_writable, write_files

RESULT, PICTURE = "result.json", "predictions.png"
Losses = dict[str, list[float]]  # term to its mean over each epoch
Row = tuple[str, Tensor, Tensor, Tensor, Tensor]  # caption, (3, H, W), (H, W), (H, W), (3, H, W)
CLASSES = ("smooth", "jagged")
SIZE, TEST_IMAGES = 64, 200


class Settings(NamedTuple):
    """How to train: passes over the images, images a step, learning rate."""

    epochs: int
    batch: int = 16
    rate: float = 3e-3

    def steps(self, images: int) -> int:
        """How many there are."""
        return self.epochs * math.ceil(images / self.batch)


class Lesions(NamedTuple):
    """Drawn images of skin, (N, 3, H, W) in [0, 1], and what is known of them."""

    images: Tensor
    targets: Tensor  # (N,), 0 = smooth outline, 1 = jagged
    segmentation: Tensor  # (N, H, W), 1 = lesion, also where a hair lies across it, 0 = background


def draw_lesions(n: int, size: tuple[int, int], seed: int) -> Lesions:
    """Draw n images of one lesion each, both classes equally often; the same seed gives the same images."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, 1, 1, generator=generator)

    def texture(cells: int) -> Tensor:
        noise = torch.randn(n, 1, cells, cells, generator=generator)
        return F.interpolate(noise, size=size, mode="bicubic")

    height, width = size
    y, x = torch.arange(height)[:, None], torch.arange(width)[None]
    targets = torch.arange(n) % 2
    dy, dx = y - height * between(0.3, 0.7), x - width * between(0.3, 0.7)
    angle, teeth = torch.atan2(dy, dx), between(5, 9).floor()
    bulge = 0.15 * torch.sin(2 * angle + between(0, math.tau))
    jags = 0.3 * targets[:, None, None] * torch.sin(teeth * angle + between(0, math.tau))
    radius = min(size) * between(0.16, 0.27) * (1 + bulge + jags)
    depth = radius - torch.hypot(dy, dx)  # pixels to the outline, above 0 inside

    skin = torch.tensor([0.85, 0.66, 0.55])[:, None, None] * between(0.75, 1.1, 1) + 0.03 * texture(6)
    lesion = torch.tensor([0.5, 0.3, 0.22])[:, None, None] * between(0.7, 1.3, 1) + 0.06 * texture(12)
    images = skin + (lesion - skin) * (depth[:, None] + 0.5).clamp(0, 1)
    for _ in range(3):
        tilt = between(0, math.tau)
        away = (y - height * between(0, 1)) * torch.cos(tilt) + (x - width * between(0, 1)) * torch.sin(tilt)
        images = images * (1 - 0.7 * (1 - away.abs()).clamp(0, 1))[:, None]
    images = (images + 0.02 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    return Lesions(images, targets, (depth > 0).long())


def small_network() -> nn.Module:
    """Four convolutions that each halve the image, global pooling, a linear layer: 79,378 parameters."""
    widths = [3, 16, 32, 64, 96]
    layers: list[nn.Module] = []
    for pair in itertools.pairwise(widths):
        layers += [nn.Conv2d(*pair, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(pair[1]), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 2))


def guard_of(network: nn.Module, size: tuple[int, int]) -> Guard:
    """The network with both heads, at the weights of Hirata and Okita."""
    heads = [SegmentationHead(num_classes=2, weight=0.4), ReconstructionHead(weight=0.4)]
    return wrap(network, heads=heads, criterion_weight=0.3, example_input=(3, *size))


def train(
    guard: Guard, data: Lesions, has_segmentation: Tensor, settings: Settings, on_step: Callable[[], None]
) -> Losses:
    """Train with Adam, its rate falling to 0; each term's mean over each epoch, unweighted."""
    optimizer = torch.optim.Adam(guard.parameters(), settings.rate)
    steps = settings.steps(len(data.images))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / steps)
    losses: Losses = defaultdict(list)
    guard.train()
    for _ in range(settings.epochs):
        terms = defaultdict(list)
        for rows in torch.randperm(len(data.images)).split(settings.batch):
            images, targets, segmentation = (part[rows] for part in data)
            optimizer.zero_grad()
            annotated = {"segmentation": has_segmentation[rows]}
            out = guard(images, targets, segmentation=segmentation, annotated=annotated)
            out.loss.backward()
            optimizer.step()
            schedule.step()
            for name, term in out.terms.items():
                terms[name].append(term.item())
            on_step()
        for name, values in terms.items():
            losses[name].append(mean(values))
    guard.eval()
    return losses


class Answers(NamedTuple):
    """What a guard makes of images."""

    classes: Tensor  # (N,)
    probabilities: Tensor  # (N, H, W), of the lesion
    images: Tensor  # (N, 3, H, W), drawn again

    def ious(self, data: Lesions) -> Tensor:
        """The lesion's intersection over union, (N,)."""
        found, there = self.probabilities > 0.5, data.segmentation > 0
        return (found & there).sum((1, 2)) / (found | there).sum((1, 2))


@torch.no_grad()
def answer(guard: Guard, images: Tensor) -> Answers:
    """Run the guard and both heads, a batch at a time."""
    parts = []
    for batch in images.split(32):
        logits, drawn = guard.predict(batch)
        parts.append((logits.argmax(1), drawn["segmentation"].softmax(1)[:, 1], drawn["reconstruction"]))
    return Answers(*(torch.cat(part) for part in zip(*parts, strict=True)))


def draw(rows: Sequence[Row]) -> bytes:
    """Image, mask, probability and reconstruction under a caption: a PNG file 900 pixels wide."""
    panel, gap, top, line, dpi = 210, 12, 38, 50, 100  # pixels but for dpi
    heights = [panel * image.shape[-2] / image.shape[-1] for _, image, *_ in rows]
    width, height = 4 * panel + 5 * gap, top + sum(heights) + len(rows) * line + gap
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
        for column, title in enumerate(("image", "mask", "segmentation", "reconstruction")):
            x = (gap + column * (panel + gap) + panel / 2) / width
            figure.text(x, 1 - 4 / height, title, fontsize=18, fontweight="bold", ha="center", va="top")
        above = top
        for (caption, *contents), tall in zip(rows, heights, strict=True):
            figure.text(gap / width, 1 - (above + line - 10) / height, caption, fontsize=20, va="bottom")
            above += line + tall
            for column, content in enumerate(contents):
                left = (gap + column * (panel + gap)) / width
                axis = figure.add_axes((left, 1 - above / height, panel / width, tall / height))
                pixels = content.permute(1, 2, 0) if content.dim() == 3 else content
                axis.imshow(pixels.float().clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axis.set(xticks=[], yticks=[])
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def pictured(data: Lesions, answers: Answers, ious: Tensor) -> bytes:
    """The first two images of each class, whatever became of them."""
    rows = []
    for i in torch.cat([(data.targets == target).nonzero()[:2, 0] for target in (0, 1)]):
        truth, said = CLASSES[int(data.targets[i])], CLASSES[int(answers.classes[i])]
        verdict = "right" if said == truth else "wrong"
        caption = f"{truth}; the classifier says {said} ({verdict}); IoU {ious[i]:.2f}"
        rows.append((caption, data.images[i], data.segmentation[i], answers.probabilities[i], answers.images[i]))
    return draw(rows)


def summary(result: dict[str, Any]) -> Table:
    """Losses of the first and the last epoch, and what the test images give."""
    table = Table("", "first epoch", "last epoch")
    for name, values in result["losses"].items():
        table.add_row(f"{name}, unweighted loss", f"{values[0]:.4f}", f"{values[-1]:.4f}")
    table.add_section()
    for name in ("accuracy", "segmentation IoU", "reconstruction error"):
        table.add_row(f"{name}, {TEST_IMAGES} test images", "", f"{result[name]:.4f}")
    return table


def main(
    out: Annotated[Path, typer.Option(help="Folder to write to, made if need be.")] = Path("out"),
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of images, weights and order.")] = 0,
    epochs: Annotated[int, typer.Option(min=1)] = 6,
    images: Annotated[int, typer.Option(min=2, help="Training images, each with its class.")] = 480,
    annotated: Annotated[int, typer.Option(min=1, help="How many of them have a segmentation, too.")] = 120,
) -> None:
    """Train a small classifier with a segmentation and a reconstruction head on drawn lesions."""
    torch.set_num_threads(1)  # the figures then do not depend on the machine's cores
    try:
        if annotated > images:
            got, needed = f"--annotated {annotated}", f"{images} (--images) or fewer"
            raise RangeError(got=got, needed=needed, fix="annotate fewer, or draw more images")
        check_writable(out, (RESULT, PICTURE))
        torch.manual_seed(seed)
        began = time.perf_counter()
        data, test = (draw_lesions(n, (SIZE, SIZE), 2 * seed + i) for i, n in enumerate((images, TEST_IMAGES)))
        guard = guard_of(small_network(), (SIZE, SIZE))
        settings = Settings(epochs)
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("training", total=settings.steps(images))
            losses = train(guard, data, torch.arange(images) < annotated, settings, lambda: progress.advance(bar))
        answers = answer(guard, test.images)
        ious = answers.ious(test)
        measured = {
            "accuracy": (answers.classes == test.targets).double().mean().item(),
            "segmentation IoU": ious.mean().item(),
            "reconstruction error": F.mse_loss(answers.images, test.images).item(),
        }
        seconds = round(time.perf_counter() - began, 1)
        result = {"losses": losses, **measured, "seconds": seconds}
        result |= {"seed": seed, "images": images, "annotated": annotated, **settings._asdict()}
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
        write_files(out, {RESULT: text.encode(), PICTURE: pictured(test, answers, ious)})
    except (AttribGuardError, OSError) as error:
        typer.echo(f"segmentation_head: {error}", err=True)
        raise typer.Exit(2) from None
    Console().print(summary(result))
    typer.echo(f"{seconds} s; wrote {out / RESULT} and {out / PICTURE}")


if __name__ == "__main__":
    typer.run(main)
