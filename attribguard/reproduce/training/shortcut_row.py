"""One row of the ActDiff paper's tables: a network and a method, trained, and tested where the shortcut misleads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from attribguard.attribution import saliency
from attribguard.demo.share_inside import share_inside
from attribguard.errors import check_choice
from attribguard.guard import Guard
from attribguard.masks import dilate
from attribguard.models import actdiff_autoencoder, actdiff_cnn, actdiff_resnet18
from attribguard.penalties import ActDiff, GradMask, Penalty
from attribguard.reproduce.recipe import Outcome, Run
from attribguard.reproduce.training.fit import fit, guarded
from attribguard.reproduce.training.images import Images, auc
from attribguard.reproduce.training.shortcut_images import ShortcutSplits, load_shortcut_splits
from attribguard.wrapping import wrap

__all__ = ["METHODS", "train_shortcut_row"]

METHODS: dict[str, Callable[[float], list[Penalty]]] = {
    "classify": lambda weight: [],
    "ActDiff": lambda weight: [ActDiff(weight)],
    "GradMask": lambda weight: [GradMask(weight)],
    "ActDiff & GradMask": lambda weight: [ActDiff(weight), GradMask(weight)],
    "classify masked": lambda weight: [],
    "masked throughout": lambda weight: [],
    "reconstruct masked": lambda weight: [],
}
"""The penalties of each method, given its weight."""

_CELLS = 32  # of a mean map, each way; 1 in a cell is what an even share would be
_LOOKED_AT = 100  # test images whose saliency is measured, as in the paper's Figure 4


def train_shortcut_row(run: Run) -> Outcome:
    """Train one network with one method; the last epoch counts.

    Settings beside those of the images: ``network``, ``norm``, ``channels``, ``method``, ``weight`` of each penalty,
    ``epochs`` (or, for one network alone, ``epochs ResNet`` and the like) and ``least epochs`` of a row,
    ``batch_size``, ``lr``, ``schedule``; ``reconstruction``: its weight in the networks with a decoder, and
    ``reconstruction_loss``; ``keep_maps``: whether the mean saliency goes into the rows.

    Args:
        run: the training.

    Returns:
        AUC on training, validation and test images; ``score``, the lower of the first two; ``inside``, the share of
        saliency within the grown mask.

    Raises:
        DataError: if a file is missing or unreadable.
        RangeError: if the method is unknown.
    """
    s = run.settings
    check_choice("method", s["method"], METHODS)
    splits = _masked(load_shortcut_splits(s, run.data, run.seed), s)
    torch.manual_seed(run.seed)
    guard = _build(s, splits.train.tensors["image"].shape[-1]).to(run.device)
    curve: list[float] = []
    fit(
        guard,
        guarded(guard, "mask", "annotated"),
        splits.train,
        epochs=max(s.get(f"epochs {s['network']}", s["epochs"]), s.get("least epochs", 0)),
        batch_size=s["batch_size"],
        lr=s["lr"],
        schedule=s["schedule"],
        device=run.device,
        on_step=run.on_step,
        after_epoch=lambda: curve.append(auc(guard, splits.valid, run.device)),
    )
    metrics = {"train": auc(guard, splits.train, run.device), "valid": curve[-1]}
    metrics["score"] = min(metrics.values())
    maps: dict[str, list[list[float]]] = {}
    if run.final:
        metrics |= {name: auc(guard, images, run.device) for name, images in splits.tests.items()}
        metrics["inside"], mean_map = _looks(guard.unwrap(), splits.tests["test"], s["dilate"], run.device)
        maps = {"saliency": mean_map} if s.get("keep_maps") else {}
    return Outcome(metrics, {"valid": curve}, maps)


def _masked(splits: ShortcutSplits, s: Mapping[str, Any]) -> ShortcutSplits:
    """The images of the two methods that hide what lies outside the mask instead of punishing a look at it."""
    if s["method"] == "masked throughout":
        tests = {name: _hidden(images, s["dilate"]) for name, images in splits.tests.items()}
        return ShortcutSplits(_hidden(splits.train, 0), _hidden(splits.valid, s["dilate"]), tests)
    if s["method"] == "classify masked":
        return splits._replace(train=_hidden(splits.train, 0))
    return splits


def _hidden(images: Images, pixels: int) -> Images:
    tensors = images.tensors
    return Images({**tensors, "image": tensors["image"] * dilate(tensors["mask"], pixels)})


def _build(s: Mapping[str, Any], size: int) -> Guard:
    network, shape = s["network"], (1, size, size)
    check_choice("network", network, ("CNN", "ResNet", "ConvAE", "UNet"))
    penalties = METHODS[s["method"]](s["weight"])
    if network == "CNN":
        cnn = actdiff_cnn(img_size=size, channels=s["channels"], norm=s["norm"])
        return wrap(cnn, penalties=penalties, example_input=shape)
    if network == "ResNet":
        resnet = actdiff_resnet18(channels=s["channels"], norm=s["norm"])
        return wrap(resnet, penalties=penalties, example_input=shape)
    return actdiff_autoencoder(
        img_size=size,
        channels=s["channels"],
        norm=s["norm"],
        skips=network == "UNet",
        loss=s["reconstruction_loss"],
        target="masked" if s["method"] == "reconstruct masked" else "input",
        weight=s["reconstruction"],
        penalties=penalties,
    )


def _looks(network: nn.Module, test: Images, pixels: int, device: torch.device) -> tuple[float, list[list[float]]]:
    """Share of saliency within the grown masks, and the mean map of annotated images, each scaled to a sum of 1."""
    some = test[: 10 * _LOOKED_AT]
    chosen = some["annotated"].nonzero()[:_LOOKED_AT, 0]
    some = {key: tensor[chosen] for key, tensor in some.items()}
    maps = saliency(network, some["image"].to(device), some["target"].to(device)).cpu()
    inside = share_inside(maps, dilate(some["mask"], pixels)[:, 0]).mean().item()
    shares = maps / maps.sum((1, 2), keepdim=True).clamp(min=1e-12)
    side = maps.shape[-1]
    cells = functional.adaptive_avg_pool2d(shares.mean(0)[None], min(side, _CELLS))[0] * side**2
    return inside, cells.tolist()
