"""The paper's own data sets, for who has them: a Decathlon task, and PadChest with ChestX-ray14."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribguard.data import ChestXray14, JointSites, MedicalDecathlon, PadChest, split_by_group
from attribguard.errors import DataError
from attribguard.reproduce.training.images import Images

__all__ = ["read_decathlon", "read_sites"]

_SHARES = (0.5, 0.25, 0.25)
_SPLITS = ("train", "valid", "test")
_PADCHEST, _CHEST_XRAY14 = "padchest", "chest-xray14"


def read_decathlon(folder: Path, sizes: tuple[int, int, int], size: int, seed: int) -> list[Images]:
    """Slices of a task of the Medical Segmentation Decathlon, half of them with the organ, split by patient.

    Each slice is stretched to [0, 1]. One without the organ counts as not annotated.

    Args:
        folder: the task's, such as ``Task09_Spleen``.
        sizes: the most images of training, validation and test.
        size: height and width in pixels.
        seed: of splits and slices.

    Returns:
        The three splits.

    Raises:
        DataError: if the folder cannot be read, or a split lacks slices with or without the organ.
    """
    data = MedicalDecathlon(folder.parent, folder.name, size=size)
    parts = split_by_group(data, data.groups, _SHARES, seed)
    generator = torch.Generator().manual_seed(seed)
    read = []
    for name, part, most in zip(_SPLITS, parts, sizes, strict=True):
        places = torch.tensor(part.indices)
        kinds = [places[data.targets[places] == target] for target in (0, 1)]
        half = min(most // 2, *map(len, kinds))
        if half < 1:
            raise DataError(
                got=f"no slice {'with' if len(kinds[1]) == 0 else 'without'} the organ in the {name} split of {folder}",
                needed="both kinds in each split",
                fix="give a task with more volumes",
            )
        chosen = torch.cat([kind[torch.randperm(len(kind), generator=generator)[:half]] for kind in kinds])
        read.append(_stack(data[int(place)] for place in chosen.sort().values))
    return read


def read_sites(folder: Path, strength: float, size: int, seed: int) -> list[Images]:
    """Emphysema in PadChest and ChestX-ray14, mixed so that the site tells much about it, as in the paper.

    Args:
        folder: holds ``padchest`` with its pictures and one CSV table, and ``chest-xray14`` as the NIH gives it out.
        strength: share of the unhealthy that is of PadChest in training.
        size: height and width in pixels.
        seed: of splits and mixture.

    Returns:
        Training, validation, test with the reverse correlation, and the same test patients with that of the training.

    Raises:
        DataError: if a folder cannot be read, or holds too few patients.
    """
    tables = sorted((folder / _PADCHEST).glob("*.csv"))
    if len(tables) != 1:
        raise DataError(
            got=f"{len(tables)} CSV tables in {folder / _PADCHEST}",
            needed="PadChest with its one table there, and ChestX-ray14 beside it in " + _CHEST_XRAY14,
            fix="put them there, or link to them",
        )
    pad = PadChest(folder / _PADCHEST, tables[0].name, ["emphysema"], size=size)
    nih = ChestXray14(folder / _CHEST_XRAY14, None, None, size=size)
    label = ("emphysema", "Emphysema")
    wanted: list[tuple[Any, float]] = [(split, strength) for split in _SPLITS] + [("test", 1 - strength)]
    mixed = [JointSites(pad, nih, label, share, split, seed=seed) for split, share in wanted]
    return [_stack(data[index] for index in range(len(data))) for data in mixed]


def _stack(items: Iterable[dict[str, Any]]) -> Images:
    columns: dict[str, list[Tensor]] = {"image": [], "target": [], "mask": [], "annotated": []}
    for item in items:
        image, target, mask = item["image"], item["target"], item["mask"]
        low, high = image.amin(), image.amax()
        there = bool(mask.any())
        columns["image"].append((image - low) / (high - low).clamp(min=1e-6))
        columns["target"].append(target)
        columns["mask"].append(mask if there else torch.ones_like(mask))
        columns["annotated"].append(torch.tensor(there) & item["annotated"])
    return Images({key: torch.stack(values) for key, values in columns.items()})
