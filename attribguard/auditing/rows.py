"""What is kept of each image: what it is, and what every network makes of it. Plain data, one JSON line an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribguard.attribution.cam import Look, look
from attribguard.attribution.saliency import saliency
from attribguard.auditing.batches import AuditBatch
from attribguard.auditing.thumbnails import heat_picture, outline_picture, thumbnail
from attribguard.errors import ModelError, RangeError
from attribguard.functional.attribution_maps import normalize_attribution
from attribguard.functional.localisation import energy_inside, pointing_game, soft_iobb, soft_ior

__all__ = ["ATTRIBUTIONS", "LOCALISATION", "Attribution", "ImageRow", "Seen", "image_rows", "see"]

LOCALISATION = {
    "inside": "evidence inside",
    "pointing": "pointing game",
    "soft_iobb": "soft IoBB, min-max",
    "soft_ior": "soft IoR, min-max",
}
"""The measures of where a network looks, and what they are called."""

Attribution = Literal["gradcam", "saliency"]
ATTRIBUTIONS: dict[Attribution, str] = {"gradcam": "Grad-CAM", "saliency": "saliency (the absolute input gradient)"}
"""The heat maps there are, and what they are called."""

_DIGITS = 6


@dataclass(frozen=True)
class Seen:
    """What one network makes of one image.

    Attributes:
        predicted: its class.
        logits: (K,).
        where: ``"inside"``, ``"pointing"``, ``"soft_iobb"`` and ``"soft_ior"`` for the predicted class; ``None`` where
            not defined, as it is for images without a region and for maps without evidence.
        heat: picture of the map; an empty string where none is kept.
    """

    predicted: int
    logits: list[float]
    where: dict[str, float | None]
    heat: str


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        name: its file or number.
        target: its class.
        group: what it belongs to, or an empty string.
        share: of its area that is annotated as relevant; 0 where nobody has annotated it.
        picture: of the image, and ``outline`` of its region; empty strings where none are kept.
        outline: see there.
        seen: what each network makes of it, by the network's name.
    """

    name: str
    target: int
    group: str
    share: float
    picture: str
    outline: str
    seen: Mapping[str, Seen]

    def plain(self) -> dict[str, Any]:
        """Dicts, lists, strings and numbers."""
        return asdict(self)


def see(
    name: str, model: nn.Module, batch: AuditBatch, attribution: Attribution = "gradcam"
) -> tuple[Look, list[Seen]]:
    """Look at a batch once; saliency takes a pass of its own.

    Args:
        name: of the network, for errors.
        model: images to logits (N, K).
        batch: on the model's device.
        attribution: the heat map.

    Raises:
        RangeError: if a class is none of the network's.
        ModelError: if an output is not finite.
    """
    seen = look(model, batch.images)
    classes = max(2, seen.logits.shape[1])
    if int(batch.targets.max()) >= classes:
        raise RangeError(
            got=f"class {int(batch.targets.max())} for a {name} with {classes} classes",
            needed=f"0 to {classes - 1}",
            fix="check the order of the classes",
        )
    if not bool(seen.logits.isfinite().all() & seen.attribution.isfinite().all()):
        bad = (~seen.logits.isfinite().all(1)).nonzero()[:1, 0].tolist()
        which = f" for {batch.names[bad[0]]}" if bad else ""
        raise ModelError(got=f"outputs of the {name} that are not finite{which}", needed="numbers", fix="check it")
    logits = seen.logits if seen.logits.shape[1] > 1 else torch.cat([-seen.logits, seen.logits], 1) / 2
    maps = seen.attribution if attribution == "gradcam" else saliency(model, batch.images, logits.argmax(1))
    large = F.interpolate(maps[:, None], batch.images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    where = _measure(large.float(), batch.regions.to(large.device))
    rows = []
    for i, row in enumerate(logits.float().cpu()):
        measured = {key: _number(values[i]) for key, values in where.items()}
        digits = [round(value, _DIGITS) for value in row.tolist()]
        rows.append(Seen(int(row.argmax()), digits, measured, heat_picture(maps[i].float())))
    return seen, rows


def image_rows(batch: AuditBatch, seen: Mapping[str, list[Seen]]) -> list[ImageRow]:
    """Put together what is kept of a batch.

    Args:
        batch: the images.
        seen: name of each network to what it makes of them.
    """
    shares = batch.regions.flatten(1).float().mean(1).tolist()
    return [
        ImageRow(
            batch.names[i],
            int(batch.targets[i]),
            batch.groups[i] if batch.groups else "",
            round(shares[i], _DIGITS),
            thumbnail(batch.images[i].float()),
            outline_picture(batch.regions[i]),
            {name: rows[i] for name, rows in seen.items()},
        )
        for i in range(len(batch.images))
    ]


def _measure(maps: Tensor, regions: Tensor) -> dict[str, Tensor]:
    scaled = normalize_attribution(maps, "minmax")
    return {
        "inside": energy_inside(maps, regions),
        "pointing": pointing_game(maps, regions).float(),
        "soft_iobb": soft_iobb(scaled, regions),
        "soft_ior": soft_ior(scaled, regions),
    }


def _number(value: Tensor) -> float | None:
    number = float(value)
    return round(number, _DIGITS) if math.isfinite(number) else None
