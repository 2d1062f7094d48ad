"""One row of the hematoma table: trained on four hospitals, tested on known patients, new ones, and other hospitals."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from attribguard.data import HematomaPhantom, leaking_split
from attribguard.reproduce.recipe import Outcome, Run
from attribguard.reproduce.training.fit import fit
from attribguard.reproduce.training.hematoma_networks import Subject, build
from attribguard.reproduce.training.hematoma_panels import PANEL_SEED, panel_maps
from attribguard.reproduce.training.images import Images, auc_of, slices

__all__ = ["train_hematoma_row"]

_KEYS = ("image", "target", "segmentation")


class _Splits(NamedTuple):
    train: Images
    valid: Images
    tests: dict[str, Images]
    mean: Tensor
    spread: Tensor

    def prepare(self, images: Tensor) -> Tensor:
        """Standardised by the training images; a Swin Transformer of random weights hardly learns otherwise."""
        return (images - self.mean) / self.spread


def train_hematoma_row(run: Run) -> Outcome:
    """Train one network on its tasks; the last epoch counts.

    Settings beside those of :func:`attribguard.reproduce.training.hematoma_networks.build`: ``train``, ``valid`` and
    ``test`` images, ``leaking`` test images, which are other slices of the training's patients, ``epochs`` of each
    stage, ``batch_size``, ``lr``, ``schedule``, ``optimizer`` and ``weight_decay``.

    Args:
        run: the training.

    Returns:
        Accuracy, precision, recall, macro F1 and AUC on the three tests, named ``"leaking f1"`` and so on, and ``iou``
        of the segmentation on new patients, each where the network has the task; and Grad-CAM on a few slices.

    Raises:
        RangeError: if the network is unknown.
    """
    s = run.settings
    splits = _draw(s["train"], s["valid"], s["test"], s["leaking"], s["size"], run.seed)
    torch.manual_seed(run.seed)
    train = partial(
        fit,
        data=splits.train,
        epochs=s["epochs"],
        batch_size=s["batch_size"],
        lr=s["lr"],
        schedule=s["schedule"],
        optimizer=s["optimizer"],
        weight_decay=s["weight_decay"],
        device=run.device,
        on_step=run.on_step,
    )
    subject = build(s, run.device, train)
    curve: list[float] = []

    def score() -> float:
        if subject.classify is None:
            return _iou(subject, splits.valid, run.device)
        return _classified(subject, splits.valid, run.device)["auc"]

    train(subject.module, subject.loss, after_epoch=lambda: curve.append(score()))
    metrics, maps = {"valid": curve[-1]}, dict[str, list[list[float]]]()
    if run.final:
        for name, images in splits.tests.items():
            if subject.classify is not None:
                found = _classified(subject, images, run.device)
                metrics |= {f"{name} {metric}": value for metric, value in found.items()}
        if subject.segment is not None:
            metrics["iou"] = _iou(subject, splits.tests["patients"], run.device)
        if subject.classify is not None and run.seed == PANEL_SEED:
            maps = panel_maps(subject.module, s, run.device, splits.prepare)
    return Outcome(metrics, {"valid": curve}, maps)


@lru_cache(maxsize=2)
def _draw(train: int, valid: int, test: int, leaking: int, size: int, seed: int) -> _Splits:
    whole = HematomaPhantom("train", train + leaking, size, seed)
    share = leaking / len(whole)
    learnt, known = leaking_split(whole, (1 - share, share), seed)
    tests = {
        "leaking": _stack(known),
        "patients": _stack(HematomaPhantom("test", test, size, seed)),
        "unseen": _stack(HematomaPhantom("unseen", test, size, seed)),
    }
    parts = {"train": _stack(learnt), "valid": _stack(HematomaPhantom("valid", valid, size, seed)), **tests}
    pixels = parts["train"].tensors["image"]
    splits = _Splits(parts["train"], parts["valid"], tests, pixels.mean(), pixels.std())
    for part in parts.values():
        part.tensors["image"] = splits.prepare(part.tensors["image"])
    return splits


def _stack(data: Dataset[Any]) -> Images:
    items = [data[index] for index in range(len(data))]  # type: ignore[arg-type]
    return Images({key: torch.stack([item[key] for item in items]) for key in _KEYS})


@torch.no_grad()
def _classified(subject: Subject, images: Images, device: torch.device) -> dict[str, float]:
    assert subject.classify is not None
    logits = torch.cat([subject.classify(part["image"]).cpu() for part in slices(images, device)])
    truth, answer = images.tensors["target"], logits.argmax(1)
    hits = ((answer == 1) & (truth == 1)).sum()
    return {
        "acc": (answer == truth).float().mean().item(),
        "prec": _ratio(hits, (answer == 1).sum()),
        "rec": _ratio(hits, (truth == 1).sum()),
        "f1": sum(_f1(answer, truth, label) for label in (0, 1)) / 2,
        "auc": auc_of(logits, truth),
    }


def _f1(answer: Tensor, truth: Tensor, label: int) -> float:
    """Of one class; 0 where it is never answered, as is the custom."""
    hits = ((answer == label) & (truth == label)).sum()
    return _ratio(2 * hits, (answer == label).sum() + (truth == label).sum())


def _ratio(part: Tensor, whole: Tensor) -> float:
    return part.item() / max(1, int(whole))


@torch.no_grad()
def _iou(subject: Subject, images: Images, device: torch.device) -> float:
    """Of the hematoma, all images together; pixels that nobody has annotated are left out."""
    assert subject.segment is not None
    both = either = 0
    for part in slices(images, device):
        known = part["segmentation"] >= 0
        drawn, there = (subject.segment(part["image"]).argmax(1) == 1) & known, part["segmentation"] == 1
        both, either = both + int((drawn & there).sum()), either + int((drawn | there).sum())
    return both / max(1, either)
