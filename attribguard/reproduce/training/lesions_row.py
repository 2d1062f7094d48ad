"""One row of the imbalance table: a network and a loss, and what both do to the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from attribguard.attribution import cam
from attribguard.errors import check_choice
from attribguard.functional.cam import CamNormalization
from attribguard.functional.ranks import as_ranks
from attribguard.losses import BCE, ClassBalancedFocal, Focal, WeightedBCE
from attribguard.models import t_densenet
from attribguard.probes import ActivationQuantile, ConceptCount, SoftIoBB, SoftIoR
from attribguard.reproduce.recipe import Outcome, Run
from attribguard.reproduce.training.fit import fit
from attribguard.reproduce.training.images import Images, logits_of, slices
from attribguard.reproduce.training.lesion_images import LesionSplits, draw_lesions, read_chest_xray14

__all__ = ["LOSSES", "train_lesions_row"]

LOSSES: dict[str, Callable[[Tensor], nn.Module]] = {
    "BCE": lambda targets: BCE(),
    "WBCE": WeightedBCE.from_targets,
    "Focal": lambda targets: Focal(),
    "CB-Focal": ClassBalancedFocal.from_targets,
}
"""The losses of the table, made from the targets (N, K) of the training images."""

_MAPS: dict[str, tuple[bool, CamNormalization]] = {
    "minmax": (True, "minmax"),
    "max": (True, "max"),
    "signed minmax": (False, "minmax"),
}
"""How a map is made and measured: whether Grad-CAM ends in its ReLU, and the normalisation. A signed map under "max",
which drops what is negative, would be the second of these again but for the enlarging in between."""

_TOP = 0.005  # share of a unit's activations above its threshold, as in network dissection


def train_lesions_row(run: Run) -> Outcome:
    """Train one network with one loss; the last epoch counts.

    Settings: ``data`` (``"lesions"``: drawn, or ``"ChestX-ray14"``), ``network`` (``"T-DenseNet"`` or ``"ResNet50"``)
    with its ``growth`` or ``channels`` and ``output_stride``, ``binary``, ``loss``, ``train``, ``valid`` and ``test``
    images of ``size`` pixels, ``epochs``, ``batch_size``, ``lr``, ``schedule``, ``weight_decay``.

    Args:
        run: the training.

    Returns:
        AUROC and average precision, the mean over labels; mean predicted probability of all labels and images, recall
        at 0.5; soft IoBB and IoR of Grad-CAM under both normalisations, and of its signed form; and concepts an image.

    Raises:
        RangeError: if a network, a loss or the data are unknown.
        DataError: if the folder cannot be read, or no picture for the test has a box.
    """
    s = run.settings
    check_choice("loss", s["loss"], LOSSES)
    splits = _load(s, run.data, run.seed)
    train, valid, test, boxed = map(_as_binary, splits) if s["binary"] else splits
    torch.manual_seed(run.seed)
    targets = train.tensors["target"]
    network = _build(s, targets.shape[1]).to(run.device)
    criterion = LOSSES[s["loss"]](targets).to(run.device)
    curve: list[float] = []
    fit(
        network,
        lambda batch: criterion(network(batch["image"]), batch["target"]),
        train,
        epochs=s["epochs"],
        batch_size=s["batch_size"],
        lr=s["lr"],
        schedule=s["schedule"],
        weight_decay=s["weight_decay"],
        device=run.device,
        on_step=run.on_step,
        after_epoch=lambda: curve.append(_classified(network, valid, run.device)["auroc"]),
    )
    metrics = {"valid": curve[-1]}
    if run.final:
        metrics |= _classified(network, test, run.device)
        metrics |= _located(network, boxed, s["binary"], run.device)
        metrics |= _concepts(network, test, boxed, run.device)
    return Outcome(metrics, {"valid": curve})


def _load(s: Mapping[str, Any], data: Path | None, seed: int) -> LesionSplits:
    check_choice("data", s["data"], ("lesions", "ChestX-ray14"))
    sizes = (s["train"], s["valid"], s["test"])
    if s["data"] == "lesions":
        return draw_lesions(sizes, s["size"], seed)
    return read_chest_xray14(data or Path(), sizes, s["size"], seed)


def _as_binary(images: Images) -> Images:
    target = images.tensors["target"].amax(1, keepdim=True)
    return Images({**images.tensors, "target": target})


def _build(s: Mapping[str, Any], outputs: int) -> nn.Module:
    check_choice("network", s["network"], ("T-DenseNet", "ResNet50"))
    if s["network"] == "T-DenseNet":
        return t_densenet(outputs, 1, growth_rate=s["growth"])
    widths = tuple(s["channels"] << stage for stage in range(4))
    stride = {"output_stride": s["output_stride"]} if s["output_stride"] < 32 else {}
    resnet: nn.Module = timm.create_model("resnet50", num_classes=outputs, in_chans=1, channels=widths, **stride)
    return resnet


def _classified(network: nn.Module, images: Images, device: torch.device) -> dict[str, float]:
    logits, targets = logits_of(network, images, device)
    if not bool(logits.isfinite().all()):
        return dict.fromkeys(("auroc", "ap", "probability", "recall"), float("nan"))
    probability = logits.sigmoid()
    figures: dict[str, list[Tensor]] = {"auroc": [], "ap": [], "recall": []}
    for column, chance, truth in zip(logits.T, probability.T, targets.long().T, strict=True):
        if len(truth.unique()) < 2:  # a label that is in none or all of few images has no ranking
            continue
        ranks = as_ranks(column)
        figures["auroc"].append(binary_auroc(ranks, truth))
        figures["ap"].append(binary_average_precision(ranks, truth))
        figures["recall"].append((chance[truth == 1] >= 0.5).float().mean())
    means = {name: torch.stack(values).mean().item() for name, values in figures.items()}
    return {**means, "probability": probability.mean().item()}


def _located(network: nn.Module, images: Images, binary: bool, device: torch.device) -> dict[str, float]:
    """Of the class's own map and boxes: each finding of an image by itself, or all of them as the one class."""
    makers = {"IoBB": SoftIoBB, "IoR": SoftIoR}
    metrics: dict[tuple[str, str], Any] = {
        (name, how): make(normalize=normalize) for name, make in makers.items() for how, (_, normalize) in _MAPS.items()
    }
    for part in slices(images, device):
        for label in range(part["target"].shape[1]):
            own = part["box_classes"] >= 0 if binary else part["box_classes"] == label
            has = (part["target"][:, label] == 1) & own.any(1)
            if not bool(has.any()):
                continue
            some = {key: tensor[has] for key, tensor in part.items()}
            score = 1 if binary else label
            maps = {relu: cam(network, some["image"], score, relu=relu) for relu in (True, False)}
            boxes = [each[mine].cpu() for each, mine in zip(some["boxes"], own[has], strict=True)]
            for (_, how), metric in metrics.items():
                metric.update(maps[_MAPS[how][0]], boxes)
    return {f"{name} {how}": metric.compute().item() for (name, how), metric in metrics.items()}


@torch.no_grad()
def _concepts(network: Any, images: Images, boxed: Images, device: torch.device) -> dict[str, float]:
    """Of the units of the last map, in the boxes of all findings; the thresholds are those of the test images."""
    quantile = ActivationQuantile(q=_TOP)
    for part in slices(images, device):
        quantile.update(network.forward_features(part["image"]).cpu())
    height, width = boxed.tensors["image"].shape[-2:]
    count = ConceptCount(quantile.compute(), image_size=(height, width))
    for part in slices(boxed, device):
        ill = (part["box_classes"] >= 0).any(1)
        if bool(ill.any()):
            count.update(network.forward_features(part["image"][ill]).cpu(), part["mask"][ill].cpu())
    return {name: value.item() for name, value in count.compute().items()}
