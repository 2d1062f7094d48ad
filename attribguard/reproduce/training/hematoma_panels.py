"""Grad-CAM of the hematoma table on a few slices, the same for all rows: of new patients and of unseen hospitals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attribguard.attribution import cam
from attribguard.data import HematomaPhantom
from attribguard.reproduce.recipe import Panel

__all__ = ["PANEL_SEED", "panel_maps", "panels"]

PANEL_SEED = 0
"""The one seed whose networks are looked at: maps of several networks on a single slice have no useful mean."""

_EACH = 2
_TESTS = {"test": "new patient", "unseen": "unseen hospital"}


def panels(s: Mapping[str, Any]) -> list[Panel]:
    """The first slices with a hypodense island of either test; hematomas are outlined where hospitals annotate them.

    Args:
        s: ``test`` images, of ``size`` pixels.
    """
    shown = []
    for split, title in _TESTS.items():
        data: Any = HematomaPhantom(split, s["test"], s["size"], PANEL_SEED)  # type: ignore[arg-type]
        positive = (item for index in range(len(data)) if int((item := data[index])["target"]) == 1)
        for number, item in zip(range(1, _EACH + 1), positive, strict=False):
            shown.append(Panel(f"{title} {number}", item["image"][0], item["segmentation"] == 1))
    return shown


def panel_maps(
    network: nn.Module, s: Mapping[str, Any], device: torch.device, prepare: Callable[[Tensor], Tensor]
) -> dict[str, list[list[float]]]:
    """What speaks for an island, by the title of the panel, at the size of the network's last map.

    Args:
        network: images to logits (N, 2), in eval mode.
        s: as for :func:`panels`.
        device: where the network is.
        prepare: what images go through before the network sees them.
    """
    shown = panels(s)
    images = torch.stack([panel.image[None] for panel in shown])
    maps = cam(network, prepare(images).to(device), 1, size="map").cpu()
    return {panel.title: cells.tolist() for panel, cells in zip(shown, maps, strict=True)}
