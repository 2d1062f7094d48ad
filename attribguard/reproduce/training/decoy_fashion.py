"""One row of the decoy table: a network that reads decoys, fine-tuned, scanned and tested."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribguard.data import DECOY_CELLS, DecoyFashion
from attribguard.penalties import RRR, ActDiff, GradCAMRRR, Penalty
from attribguard.probes import patch_swap_scan, scan_classes
from attribguard.reproduce.recipe import Outcome, Run
from attribguard.reproduce.training.fit import fit, guarded
from attribguard.reproduce.training.images import Images, accuracy
from attribguard.wrapping import wrap

__all__ = ["PENALTIES", "decoy_network", "train_decoy_row"]

_SNEAKER, _SHIRT = 7, 6
_HELD_OUT = 55_000  # of the training images those from here on are for validation
_TESTS = {"own": "class", "other": "random", "clean": "none"}

PENALTIES: dict[str, Callable[[float], Penalty]] = {
    "Eq. 2": lambda weight: GradCAMRRR(weight, cam="gradcam", score="target", normalize="minmax"),
    "Eq. 2 in code": lambda weight: GradCAMRRR(
        weight, layer="conv", cam="gradcam", score="predicted", normalize="minmax", relu=False, constant_weights=True
    ),
    "HiResCAM": lambda weight: GradCAMRRR(weight, cam="hirescam", score="target", normalize="minmax"),
    "HiResCAM of a projection": lambda weight: GradCAMRRR(
        weight, cam="hirescam", score="projection", normalize="none", dilate=1
    ),
    "input gradient": RRR,
    "ActDiff": ActDiff,
}
"""The penalties of the table by the name of the setting ``method``."""


def decoy_network() -> nn.Module:
    """One convolution, ReLU, pooling, dropout, one linear layer (Hagos et al., Section 3.2.1)."""
    network = nn.Sequential()
    network.add_module("conv", nn.Conv2d(1, 32, 3, padding=1))
    network.add_module("relu", nn.ReLU())
    network.add_module("pool", nn.MaxPool2d(2))
    network.add_module("dropout", nn.Dropout(0.5))
    network.add_module("flatten", nn.Flatten())
    network.add_module("linear", nn.Linear(32 * 14 * 14, 10))
    return network


def train_decoy_row(run: Run) -> Outcome:
    """Train with cross entropy, fine-tune with the row's penalty, and measure what the decoys still do.

    Settings: ``images`` to train on, ``decoys`` (False: images as they are), ``first_epochs``, ``epochs``, ``method``
    (``None``: no penalty; ``"none"``: no fine-tuning), ``weight``, ``lr``, ``annotate`` (``"places"``, ``"instance"``,
    or ``"scan"``: what a scan of all classes finds), ``rounds`` of scan and fine-tuning, and the sizes of the scans.

    Args:
        run: the training.

    Returns:
        Accuracy under the own decoy, under another class's and without, and the scan's figures at the decoy.

    Raises:
        DataError: if Fashion-MNIST is not in the folder.
    """
    s, root = run.settings, run.data or Path()
    kind = "class" if s["decoys"] else "none"
    network = copy.deepcopy(_first(run.seed, s["images"], kind, s["first_epochs"], str(root), run.device))
    scanned, curves = s["annotate"] == "scan", dict[str, list[float]]()
    valid = {name: _valid(str(root), _TESTS[name], s["valid"]) for name in ("own", "other")}
    valid = valid if s["images"] <= _HELD_OUT else {}
    data = _data("train", str(root), kind, "places" if scanned else s["annotate"])
    mask, metrics = torch.ones(1, 1, 28, 28), dict[str, float]()

    def measure_epoch() -> None:
        for name, images in valid.items():
            curves.setdefault(f"valid {name}", []).append(accuracy(network.eval(), images, run.device))

    torch.manual_seed(run.seed)
    for _ in range(s["rounds"] if scanned else 1):
        if s["method"] == "none":
            measure_epoch()
            continue
        if scanned:
            mask = mask * _places_found(network, valid["own"], s)
        guard = wrap(
            network,
            penalties=[PENALTIES[s["method"]](s["weight"])] if s["method"] else [],
            example_input=(1, 28, 28),
        )
        fit(
            guard,
            guarded(guard, "mask", "annotated"),
            _Masked(data, mask) if scanned else data,
            epochs=s["epochs"],
            batch_size=s["batch_size"],
            lr=s["lr"],
            device=run.device,
            n=s["images"],
            on_step=run.on_step,
            after_epoch=measure_epoch,
        )
        network = guard.unwrap().eval()
    if valid:
        metrics["valid"] = min(values[-1] for values in curves.values())
    if scanned:
        metrics |= _count_places(mask)
    if run.final:
        for name, decoys in _TESTS.items():
            metrics[name] = accuracy(network, _data("test", str(root), decoys, "places"), run.device)
        metrics |= _scan_sneakers(network, str(root), s)
    return Outcome(metrics, curves)


class _Masked:
    """Images with one mask for all of them."""

    def __init__(self, data: DecoyFashion, mask: Tensor) -> None:
        self.data, self.mask = data, mask

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> dict[str, Tensor]:
        batch = self.data[index]
        return batch | {"mask": self.mask.expand(len(batch["target"]), 1, 28, 28)}


@lru_cache(maxsize=8)
def _data(split: Any, root: str, kind: Any, annotate: Any) -> DecoyFashion:
    return DecoyFashion(split, root, kind, annotate=annotate)


@lru_cache(maxsize=8)
def _valid(root: str, kind: str, n: int) -> Images:
    return Images(_data("train", root, kind, "places")[_HELD_OUT : _HELD_OUT + n])


@lru_cache(maxsize=8)
def _first(seed: int, images: int, kind: str, epochs: int, root: str, device: torch.device) -> nn.Module:
    """The network of cross entropy alone, with which all rows of a seed start. Never changed."""
    torch.manual_seed(seed)
    network = decoy_network().to(device)
    guard = wrap(network, example_input=(1, 28, 28))
    data = _data("train", root, kind, "places")
    fit(guard, guarded(guard), data, epochs=epochs, batch_size=128, lr=1e-3, device=device, n=images)
    return guard.unwrap().eval()


def _places_found(network: nn.Module, data: Images, s: Any) -> Tensor:
    """A mask (1, 1, 28, 28) without the places on which the network depends, found without annotations."""
    items = [(data.tensors["image"][i], int(data.tensors["target"][i])) for i in range(len(data))]
    scan = scan_classes(
        network,
        items,
        sources=s["scan_sources"],
        targets=s["scan_targets"],
        passes=s["scan_passes"],
        progress=False,
    )
    return scan.irrelevant_mask(alpha=0.01, min_drop=0.5)


def _count_places(mask: Tensor) -> dict[str, float]:
    cells = (mask[0, 0, ::4, ::4] == 0).flatten().nonzero()[:, 0].tolist()
    return {"places": len(set(cells) & set(DECOY_CELLS)), "false places": len(set(cells) - set(DECOY_CELLS))}


def _scan_sneakers(network: nn.Module, root: str, s: Any) -> dict[str, float]:
    """The paper's scan: sneakers that the network gets right, with the patches of shirts, on test images."""
    test = _data("test", root, "class", "places")
    device = next(network.parameters()).device
    sneakers, shirts = (test.images[test.targets == label].float().to(device) / 255 for label in (_SNEAKER, _SHIRT))
    with torch.no_grad():
        right = network(sneakers).argmax(1) == _SNEAKER
    if not bool(right.any()):
        return {"drop": float("nan"), "elsewhere": float("nan"), "named": float("nan")}
    scan = patch_swap_scan(
        network,
        sneakers[right][: s["sneakers"]],
        shirts[: s["shirts"]],
        source_class=_SNEAKER,
        passes=s["passes"],
        progress=False,
    )
    decoy = DECOY_CELLS[_SNEAKER]
    elsewhere = [float(drop) for position, drop in enumerate(scan.drop) if position != decoy]
    named = (scan.curves.argmin(1) == decoy).mean()
    return {"drop": float(scan.drop[decoy]), "elsewhere": max(elsewhere), "named": float(named)}
