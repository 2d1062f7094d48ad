"""The rule that fixes the phantoms' parameters: what a plain network scores where a shortcut holds and where not.

A small residual network, trained with cross entropy alone, is measured on held-out slices. The bounds below were
written down first, and the phantoms' parameters chosen so that this network meets them; no method of the library had a
part in it. The rows that are committed say what came out, and a fingerprint of the images says of which phantoms.

    python -m benchmarks.phantom_rule --seeds 3

needs one core of a CPU for about 20 minutes and writes `benchmarks/results/phantom_rule.csv`.
"""

import argparse
import csv
import io
import itertools
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchmetrics.functional.classification import binary_auroc

from attribguard.data.phantoms import HematomaPhantom, LesionPhantom, OrganPhantom, SitesPhantom
from attribguard.data.phantoms.phantom import Phantom, ShortcutPhantom

RESULTS = Path(__file__).parent / "results" / "phantom_rule.csv"
TRAINING, TESTING = 4000, 2000  # slices
EPOCHS, BATCH, RATE = 6, 32, 2e-3


class Rule(NamedTuple):
    """The AUC that a plain network must have on a split; with ``strength``, of another shortcut than the training's."""

    split: str
    least: float = 0.0
    most: float = 1.0
    strength: float | None = None


PHANTOMS: dict[type[Phantom], tuple[Rule, ...]] = {
    HematomaPhantom: (Rule("test", least=0.90), Rule("unseen", least=0.60, most=0.80)),
    SitesPhantom: (Rule("seen", least=0.90), Rule("test", most=0.60)),
    LesionPhantom: (Rule("test", least=0.90),),
    OrganPhantom: (Rule("test", least=0.90), Rule("test", strength=0.5)),  # the second is for information
}
# For information: where the shortcut says nothing in training either, the same network learns what it should.
CONTROLS = {HematomaPhantom: Rule("unseen"), SitesPhantom: Rule("test"), OrganPhantom: Rule("test")}
NO_SHORTCUT = 0.5


class Block(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one; halves the image."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, padding=1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.past = nn.Conv2d(inner, outer, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.convolutions(x) + self.past(x))


def plain_network(outputs: int) -> nn.Module:
    """A residual network for 64 x 64 gray pixels: a strided convolution, three blocks, pooling, a linear layer."""
    widths = [16, 32, 64, 96]
    blocks = [Block(*pair) for pair in itertools.pairwise(widths)]
    stem = [nn.Conv2d(1, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], outputs))


def images_and_targets(data: Phantom) -> tuple[Tensor, Tensor]:
    """All images (n, 1, H, W) and targets of a phantom."""
    joined = default_collate([{name: item[name] for name in ("image", "target")} for item in data])
    return joined["image"], joined["target"]


def train(images: Tensor, targets: Tensor) -> nn.Module:
    """Adam, its rate falling to 0; cross entropy, binary and for each label apart where there are several."""
    labels = targets.shape[1] if targets.dim() == 2 else 2
    loss = F.binary_cross_entropy_with_logits if targets.dim() == 2 else F.cross_entropy
    network = plain_network(labels)
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    batches = EPOCHS * len(images) // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: max(0.0, 1 - done / batches))
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            loss(network(images[rows]), targets[rows]).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def auc(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    """Area under the ROC curve; the mean over the labels where there are several."""
    logits = torch.cat([network(batch) for batch in images.split(256)])
    scores = logits if targets.dim() == 2 else (logits[:, 1] - logits[:, 0])[:, None]
    columns = zip(scores.sigmoid().double().T, targets.reshape(len(targets), -1).int().T, strict=True)
    return torch.stack([binary_auroc(score, target) for score, target in columns]).mean().item()


def fingerprint(data: Phantom) -> str:
    """A checksum of the first sixteen slices, as 8-bit grays."""
    grays = np.stack([np.rint(data[i]["image"].numpy() * 255).astype(np.uint8) for i in range(16)])
    return f"{zlib.crc32(grays.tobytes()):08x}"


def with_strength(data: Phantom, strength: float | None) -> Phantom:
    """The slices with a shortcut of this strength, or of their own."""
    return data.shortcut(strength) if strength is not None and isinstance(data, ShortcutPhantom) else data


def measure(phantom: type[Phantom], seed: int, control: bool = False) -> Iterator[dict[str, Any]]:
    """Train one network; a row for each rule of the phantom."""
    torch.manual_seed(seed)
    training = with_strength(phantom("train", TRAINING, seed=seed), NO_SHORTCUT if control else None)
    network = train(*images_and_targets(training))
    for rule in [CONTROLS[phantom]] if control else PHANTOMS[phantom]:
        data = with_strength(phantom(rule.split, TESTING, seed=seed), NO_SHORTCUT if control else rule.strength)
        yield {
            "phantom": phantom.__name__,
            "trained at": getattr(training, "strength", ""),
            "split": rule.split,
            "strength": getattr(data, "strength", ""),
            "seed": seed,
            "auc": f"{auc(network, *images_and_targets(data)):.3f}",
            "least": f"{rule.least:.2f}",
            "most": f"{rule.most:.2f}",
            "n": TESTING,
            "n train": TRAINING,
            "epochs": EPOCHS,
            "fingerprint": fingerprint(data),
            "torch": torch.__version__,
        }


def holds(row: dict[str, Any]) -> bool:
    """Whether a row, also one read from the file, keeps its rule."""
    return float(row["least"]) <= float(row["auc"]) <= float(row["most"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ... up to this many")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the figures then do not depend on the machine's cores
    rows = []
    runs = [
        (phantom, control) for phantom in PHANTOMS for control in (False, True) if not control or phantom in CONTROLS
    ]
    for (phantom, control), seed in itertools.product(runs, range(options.seeds)):
        began = time.perf_counter()
        for row in measure(phantom, seed, control):
            rows.append(row)
            verdict = "" if holds(row) else "  BROKEN"
            print(*(row[name] for name in ("phantom", "trained at", "split", "strength", "seed", "auc")), verdict)
        print(f"  {time.perf_counter() - began:.0f} s", flush=True)
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(file.getvalue(), "utf-8")
    return int(not all(map(holds, rows)))


if __name__ == "__main__":
    raise SystemExit(main())
