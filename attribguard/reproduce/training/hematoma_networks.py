"""The networks of the hematoma table: what is trained in which order, and what it classifies and segments with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from attribguard.errors import check_choice
from attribguard.guard import Guard
from attribguard.heads import SegmentationHead
from attribguard.losses import DiceCE
from attribguard.models import joint_classifier, mtl_swin_unet, swin_backbone, unet
from attribguard.reproduce.training.fit import guarded
from attribguard.wrapping import wrap

__all__ = ["NETWORKS", "Subject", "build"]

NETWORKS = ("UNet", "ResNet152", "Swin", "joint-CNN", "Joint-Swin")
Train = Callable[[nn.Module, Callable[[Mapping[str, Tensor]], Tensor]], None]


class Subject(NamedTuple):
    """A network that is ready to be trained.

    Attributes:
        module: whose parameters are trained.
        loss: of a batch.
        classify: images to logits (N, 2), or ``None``.
        segment: images to logits (N, 2, H, W), or ``None``.
    """

    module: nn.Module
    loss: Callable[[Mapping[str, Tensor]], Tensor]
    classify: Callable[[Tensor], Tensor] | None
    segment: Callable[[Tensor], Tensor] | None


def build(s: Mapping[str, Any], device: torch.device, train_first: Train) -> Subject:
    """Build a network; the joint ones train their segmentation encoder now.

    Args:
        s: ``network``, ``size`` in pixels, and of a Swin Transformer ``variant``, ``tasks``, ``embed_dim``, ``window``,
            ``drop_path``; ``channels`` and ``depth`` of the UNet, ``resnet_channels``, and the timm name ``cnn``.
        device: where to put it.
        train_first: trains a module with a loss, for the first of two stages.

    Raises:
        RangeError: if the network is unknown.
    """
    check_choice("network", s["network"], NETWORKS)
    if s["network"] == "UNet":
        network = unet(2, 1, channels=s["channels"], depth=s["depth"]).to(device)
        dice = DiceCE()
        return Subject(network, lambda batch: dice(network(batch["image"]), batch["segmentation"]), None, network)
    if s["network"] == "ResNet152":
        widths = tuple(s["resnet_channels"] << stage for stage in range(4))
        return _classifier(timm.create_model("resnet152", num_classes=2, in_chans=1, channels=widths), device)
    if s["network"] == "Swin":
        guard = mtl_swin_unet(s["variant"], tasks=s["tasks"], **_swin(s)).to(device)
        return _of_guard(guard, s["tasks"])
    if s["network"] == "Joint-Swin":
        first = mtl_swin_unet(s["variant"], tasks=("seg",), **_swin(s)).to(device)
        second = swin_backbone(0, depths=_DEPTHS[s["variant"]], **_swin(s))
    else:
        cnn, second = (timm.create_model(s["cnn"], in_chans=1, num_classes=0) for _ in range(2))
        head = SegmentationHead(2, weight=1.0)
        first = wrap(cnn, heads=[head], criterion="none", example_input=(1, s["size"], s["size"])).to(device)
    train_first(first, guarded(first, "segmentation"))
    return _classifier(joint_classifier(first.unwrap(), second, 2), device)


_DEPTHS = {"default": (2, 2, 2, 2), "tiny": (2, 2, 6, 2)}


def _swin(s: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "in_chans": 1,
        "img_size": s["size"],
        "embed_dim": s["embed_dim"],
        "num_heads": tuple(s["embed_dim"] // 8 * 2**stage for stage in range(4)),
        "window_size": s["window"],
        "drop_path": s["drop_path"],
    }


def _classifier(network: nn.Module, device: torch.device) -> Subject:
    guard = wrap(network.to(device))
    return Subject(guard, guarded(guard), guard, None)


def _of_guard(guard: Guard, tasks: list[str]) -> Subject:
    def segment(images: Tensor) -> Tensor:
        return guard.predict(images, ["segmentation"]).predictions["segmentation"]

    return Subject(
        guard,
        guarded(guard, "segmentation"),
        guard if "cls" in tasks else None,
        segment if "seg" in tasks else None,
    )
