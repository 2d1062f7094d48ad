"""Both heads on many networks, each trained from scratch for a minute or so, and what they draw of a test image.

    python -m examples.heads_on_any_network --out runs/heads

trains a segmentation and a reconstruction head, as in `segmentation_head.py` beside this file, on networks of timm,
torchvision and `attribguard.models` and on a hand-written one for images of 97 x 131 pixels. It needs one core of a CPU
for about twenty minutes. Each network's result is kept in the folder: an interrupted run goes on with the next network.
At the end it writes `heads-1.png` and `heads-2.png` there and prints the figures as a table in Markdown.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
import torchvision
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from attribguard import Guard, SegmentationHead, models
from attribguard.errors import AttribGuardError, DataError
from attribguard.whole_files import check_writable, write_files
from examples.segmentation_head import Settings, answer, draw, draw_lesions, guard_of, train

SQUARE, ODD = (64, 64), (97, 131)
IMAGES, TEST_IMAGES = 400, 64
IN_A_PICTURE = 7
COLOUR: dict[str, Any] = {"in_chans": 3, "img_size": 64, "norm": "batch"}
# 100, 300 and 300 steps: as many as the network needs for more than a blur.
SHORT, LONG, GENTLE = Settings(2, 8, rate=1e-3), Settings(6, 8, rate=1e-3), Settings(6, 8, rate=5e-4)
Result = dict[str, Any]


class HandWritten(nn.Module):
    """Unpadded convolutions, activations as functions: maps of 47 x 64, 23 x 31 and 11 x 15 for 97 x 131 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(3, 24, 5, stride=2)
        self.norm = nn.BatchNorm2d(24)
        self.middle = nn.Conv2d(24, 48, 3, stride=2)
        self.far = nn.Conv2d(48, 96, 3, stride=2)
        self.classify = nn.Linear(96, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 2)."""
        x = F.relu(self.norm(self.near(x)), inplace=True)
        x = F.gelu(self.far(F.gelu(self.middle(x))))
        return self.classify(x.mean((2, 3)))


class Entry(NamedTuple):
    """A network, or a guard that comes with heads; its images' height and width; how it is trained."""

    build: Callable[[], Any]
    size: tuple[int, int] = SQUARE
    settings: Settings = SHORT


def from_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    """What builds a network of timm, with random weights."""
    return partial(timm.create_model, name, num_classes=2, **options)


def redrawing(network: Callable[..., Guard]) -> Callable[[], Guard]:
    """What builds a network of the ActDiff paper that draws its images again, with a segmentation head beside."""

    def build() -> Guard:
        heads = [SegmentationHead(num_classes=2, weight=0.4)]
        return network(**COLOUR, loss="mse", weight=0.4, criterion_weight=0.3, heads=heads)

    return build


NETWORKS = {
    "timm resnet18": Entry(from_timm("resnet18")),
    "timm resnet50": Entry(from_timm("resnet50")),
    "timm densenet121": Entry(from_timm("densenet121")),
    "timm efficientnet_b0": Entry(from_timm("efficientnet_b0")),
    "timm convnext_atto": Entry(from_timm("convnext_atto"), settings=LONG),
    "timm swin_tiny": Entry(from_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4), settings=LONG),
    "timm vit_tiny": Entry(from_timm("vit_tiny_patch16_224", img_size=64, patch_size=8), settings=GENTLE),
    "torchvision resnet18": Entry(partial(torchvision.models.resnet18, num_classes=2)),
    "actdiff_cnn": Entry(partial(models.actdiff_cnn, **COLOUR)),
    "actdiff_autoencoder": Entry(redrawing(models.actdiff_autoencoder), settings=LONG),
    "actdiff_unet": Entry(redrawing(models.actdiff_unet), settings=LONG),
    "actdiff_resnet18": Entry(partial(models.actdiff_resnet18, in_chans=3)),
    "mtl_swin_unet": Entry(partial(models.mtl_swin_unet, img_size=64, window_size=4), settings=GENTLE),
    "hand-written CNN, 97 x 131": Entry(HandWritten, ODD, LONG),
}


def trained(entry: Entry, seed: int, on_step: Callable[[], None]) -> Result:
    """Train one network; its figures on the test images, and the second of these with what was drawn of it."""
    torch.manual_seed(seed)
    built = entry.build()
    guard = built if isinstance(built, Guard) else guard_of(built, entry.size)
    data, test = (draw_lesions(n, entry.size, 2 * seed + i) for i, n in enumerate((IMAGES, TEST_IMAGES)))
    began = time.process_time()
    train(guard, data, torch.ones(IMAGES, dtype=torch.bool), entry.settings, on_step)
    seconds = time.process_time() - began
    answers = answer(guard, test.images)
    return {
        "iou": answers.ious(test).mean().item(),
        "mse": F.mse_loss(answers.images, test.images).item(),
        "seconds": seconds,
        # A copy each: a view would be saved with all of its storage.
        "drawn": [x[1].clone() for x in (test.images, test.segmentation, answers.probabilities, answers.images)],
    }


def kept(file: Path, asked: list[Any]) -> Result | None:
    """The result of an earlier run with the same settings, if there is one."""
    if not file.exists():
        return None
    try:
        result = torch.load(file, weights_only=True)
        return result if result["asked"] == asked else None
    except Exception as error:  # a damaged file raises whatever the unpickler stumbles over
        raise DataError(
            got=f"{file}, which cannot be read", needed="a result of this program", fix="remove it"
        ) from error


def main(
    out: Annotated[Path, typer.Option(help="Folder to write to, made if need be.")] = Path("runs/heads"),
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of images, weights and order.")] = 0,
    only: Annotated[str, typer.Option(help="Train those whose names contain this.")] = "",
) -> None:
    """Train two heads on each of many networks for a few steps, and draw what they make of a test image."""
    torch.set_num_threads(1)  # the figures then do not depend on the machine's cores
    chosen = {name: entry for name, entry in NETWORKS.items() if only in name}
    if not chosen:
        raise typer.BadParameter(f"none of {list(NETWORKS)} contains {only!r}", param_hint="--only")
    results: dict[str, Result] = {}
    try:
        check_writable(out, [f"{name}.pt" for name in chosen])
        with Progress(console=Console(stderr=True)) as progress:
            for name, entry in chosen.items():
                asked = [seed, IMAGES, *entry.settings]
                steps = entry.settings.steps(IMAGES)
                bar = progress.add_task(name, total=steps)
                result = kept(out / f"{name}.pt", asked)
                if result is None:
                    result = trained(entry, seed, partial(progress.advance, bar))
                    result |= {"asked": asked, "steps": steps}
                    file = io.BytesIO()
                    torch.save(result, file)
                    write_files(out, {f"{name}.pt": file.getvalue()})
                progress.update(bar, completed=steps)
                results[name] = result
        write_files(out, pictures(results))
    except (AttribGuardError, OSError) as error:
        typer.echo(f"heads_on_any_network: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(table(results))


def pictures(results: dict[str, Result]) -> dict[str, bytes]:
    """File name to PNG, so many networks in each."""
    rows = [
        (f"{name}: IoU {result['iou']:.2f}, error {result['mse']:.4f}", *result["drawn"])
        for name, result in results.items()
    ]
    starts = range(0, len(rows), IN_A_PICTURE)
    return {f"heads-{i}.png": draw(rows[start : start + IN_A_PICTURE]) for i, start in enumerate(starts, start=1)}


def table(results: dict[str, Result]) -> str:
    """The figures in Markdown."""
    lines = ["| network | IoU | squared error | steps | seconds |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, result in results.items():
        figures = f"{result['iou']:.2f} | {result['mse']:.4f} | {result['steps']} | {result['seconds']:.0f}"
        lines.append(f"| {name} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
