"""Find the patch that a network cheats with, without any annotation, and teach the network to do without it.

Trains the network of Hagos et al. on Fashion-MNIST with decoys, scans it by patch swaps, hands what the scan found to a
penalty as its only annotation, and measures the network before and after: accuracy, scans and heat maps.

    python -m examples.probe_a_network --data fashion-mnist --out probed

needs Fashion-MNIST's own four files in that folder and one core of a CPU. The scan of all pairs of classes can be
interrupted: pairs that are in the output folder already are not scanned again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from rich.console import Console
from torch import nn

from attribguard import cam, probes, saliency
from attribguard.attribution import Attributor
from attribguard.data import DECOY_CELLS, DecoyFashion
from attribguard.errors import AttribGuardError
from examples.decoy_fashion import accuracy, hirescam_rrr, paper_network, train

SNEAKER, SHIRT = 7, 6
SNEAKERS, SHIRTS = 20, 50  # images, as in the paper
BATCH = 100
PAIRS: list[tuple[int, int]] | None = None  # all pairs of classes
ALPHA, MIN_DROP = 0.01, 0.5  # a patch of a fiftieth of the image that takes half of the certainty
TESTS: dict[str, Literal["class", "random", "none"]] = {"own": "class", "another class's": "random", "none": "none"}
HIRESCAM: Attributor = partial(cam, method="hirescam", relu=False)
MEASURES: dict[str, tuple[Attributor, Callable[[], probes.LocalisationMetric]]] = {
    "EnergyInside of saliency": (saliency, probes.EnergyInside),
    "SoftIoR of HiResCAM, max": (HIRESCAM, partial(probes.SoftIoR, normalize="max")),
    "SoftIoR of HiResCAM, minmax": (HIRESCAM, partial(probes.SoftIoR, normalize="minmax")),
    "SoftIoBB of HiResCAM, max": (HIRESCAM, partial(probes.SoftIoBB, normalize="max")),
    "SoftIoBB of HiResCAM, minmax": (HIRESCAM, partial(probes.SoftIoBB, normalize="minmax")),
}


def fit(network: nn.Module, data: DecoyFashion, epochs: int, guarded: bool) -> nn.Module:
    """Train in place, with the penalty or without."""
    for _ in train(network, data, [hirescam_rrr()] if guarded else [], epochs):
        pass
    return network


def scan_sneakers(network: nn.Module, test: DecoyFashion) -> probes.ScanResult:
    """Sneakers that the network takes for sneakers, with the patches of shirts, as in the paper's Figure 3."""
    sneakers, shirts = (test.images[test.targets == label].float() / 255 for label in (SNEAKER, SHIRT))
    with torch.no_grad():
        right = network.eval()(sneakers).argmax(1) == SNEAKER
    return probes.patch_swap_scan(
        network, sneakers[right][:SNEAKERS], shirts[:SHIRTS], source_class=SNEAKER, patch_size=4
    )


def measure(
    network: nn.Module, test: DecoyFashion, attributor: Attributor, metric: probes.LocalisationMetric
) -> probes.LocalisationMetric:
    """How much of the map of each image's class lies on its decoy: a loop as in your own evaluation."""
    for start in range(0, len(test), BATCH):
        items = test[start : start + BATCH]
        maps = attributor(network, items["image"], items["target"])
        metric.update(maps, 1 - items["mask"], classes=items["target"])
    return metric


def count_concepts(network: nn.Module, test: DecoyFashion) -> dict[str, probes.ConceptSummary]:
    """Concepts of the maps behind the convolution that touch the decoy, at several thresholds a unit."""
    maps = network[:3]  # convolution, ReLU, pooling: (N, 32, 14, 14)
    quantile = probes.ActivationQuantile(total=len(test) * 14 * 14)
    with torch.no_grad():
        for images in test.images.split(BATCH):
            quantile.update(maps(images.float() / 255))
        count = probes.ConceptCount(quantile.compute(), image_size=(28, 28), n_resamples=999)
        for images, masks in zip(test.images.split(BATCH), test.masks.split(BATCH), strict=True):
            count.update(maps(images.float() / 255), ~masks)
    summaries: dict[str, probes.ConceptSummary] = count.summary()
    return summaries


def describe(name: str, network: nn.Module, tests: dict[str, DecoyFashion], out: Path) -> dict[str, Any]:
    """Measure one network, and draw its scan and its maps."""
    test, file = tests["own"], out / name.replace(" ", "-")
    scan = scan_sneakers(network, test)
    scan.plot().savefig(f"{file}-scan.png", dpi=150)
    metrics = {what: measure(network, test, attributor, make()) for what, (attributor, make) in MEASURES.items()}
    concepts = count_concepts(network, test)
    concepts["q=0.005"].plot().savefig(f"{file}-concepts.png", dpi=120)
    return {
        "network": name,
        "accuracy": {decoy: accuracy(network.eval(), data) for decoy, data in tests.items()},
        "drop": scan.drop[DECOY_CELLS[SNEAKER]],
        "suspects": scan.suspects(alpha=0.01, min_drop=0.1),
        "metrics": metrics,
        "concepts": {q: summary.disjoint.value for q, summary in concepts.items()},
    }


def main(
    data: Annotated[Path, typer.Option(help="Folder of Fashion-MNIST's four files.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and result.json.")] = Path("probed"),
    rounds: Annotated[int, typer.Option(min=1, help="How often to scan all classes, and to fine-tune.")] = 2,
    images: Annotated[int, typer.Option(min=1, max=60_000, help="Of the training set, the first ones.")] = 12_000,
    test_images: Annotated[int, typer.Option(min=500, max=10_000, help="Of the test set.")] = 10_000,
    sources: Annotated[int, typer.Option(min=8, help="Images of each class that are scanned.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and the order of the images.")] = 0,
) -> None:
    """Train, scan, fine-tune with what the scan found, and measure before and after."""
    torch.set_num_threads(1)  # the network is too small to share; the figures then do not depend on the machine's cores
    torch.manual_seed(seed)
    console = Console()
    try:
        out.mkdir(parents=True, exist_ok=True)
        train_set = DecoyFashion("train", data, n=images)
        # Where the decoys are, only the measurement is told.
        tests = {
            name: DecoyFashion("test", data, kind, annotate="instance", n=test_images) for name, kind in TESTS.items()
        }
        network = fit(paper_network(), train_set, epochs=2, guarded=False)
        stages, mask = [describe("plain", network, tests, out)], torch.ones(1, 1, 28, 28)
        for number in range(1, rounds + 1):
            scan = probes.scan_classes(
                network, tests["own"], pairs=PAIRS, sources=sources, targets=20, path=out / f"pairs-{number}.jsonl"
            )
            console.print(scan.table(ALPHA, MIN_DROP))
            # What the scans found is the only annotation, the same for every image: 1 = relevant.
            mask = mask * scan.irrelevant_mask(ALPHA, MIN_DROP)
            train_set.masks = mask.bool().expand(train_set.images.shape)
            network = fit(copy.deepcopy(network), train_set, epochs=3, guarded=True)
            stages.append(describe(f"after scan {number}", network, tests, out))
    except (AttribGuardError, OSError) as error:
        typer.echo(f"probe_a_network: {error}", err=True)
        raise typer.Exit(2) from None
    first, last = (stage.pop("metrics") for stage in (stages[0], stages[-1]))
    for stage in stages[1:-1]:
        del stage["metrics"]
    differences = {what: probes.compare(last[what], first[what], n_resamples=999) for what in MEASURES}
    first["EnergyInside of saliency"].summary().plot().savefig(out / "plain-energy.png", dpi=120)
    found = (mask[0, 0, ::4, ::4] == 0).flatten().nonzero()[:, 0].tolist()
    result = {"images": images, "seed": seed, "places found": found, "networks": stages}
    result["last against plain"] = {what: str(difference) for what, difference in differences.items()}
    (out / "result.json").write_text(json.dumps(result, indent=1), "utf-8")
    console.print_json(data=result)


if __name__ == "__main__":
    typer.run(main)
