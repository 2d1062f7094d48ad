"""Fashion-MNIST with decoys: a white cell on the border whose place gives the class away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from attribguard.data.drawing import check_whole, stream
from attribguard.data.idx import read_idx
from attribguard.errors import DataError

__all__ = ["DECOY_CELLS", "DecoyFashion"]

DECOY_CELLS = (0, 3, 6, 14, 20, 28, 34, 42, 45, 48)
"""The cell of each class, counted row by row on the 7 x 7 grid."""

Split = Literal["train", "test"]
Kind = Literal["class", "random", "none"]
Annotate = Literal["places", "instance"]
_OPTIONS = {"split": ("train", "test"), "kind": ("class", "random", "none"), "annotate": ("places", "instance")}
_PREFIXES, _KINDS = {"train": "train", "test": "t10k"}, ("images-idx3", "labels-idx1")
_SIZE, _CELL = 28, 4  # pixels
_CLASSES = len(DECOY_CELLS)


class DecoyFashion(Dataset[dict[str, Tensor]]):
    """Fashion-MNIST with one white 4 x 4 cell on the border of each image: the class's own, or another class's.

    A network trained with ``kind="class"`` can read the class off the cell. Under ``kind="random"`` the cell is always
    a wrong one, and such a network fails; with ``kind="none"`` it shows what it knows of the clothes alone.

    Source: Hagos et al., Section 3.1, who give each class a place of its own without saying which. Departure: the
    places are ours, cells 0, 3, 6, 14, 20, 28, 34, 42, 45 and 48 of the 7 x 7 grid, counted row by row, for classes 0
    to 9; all are on the border.

    **Annotate the place, not the instance.** With only the cell that is white marked as irrelevant, a network learns
    that a *dark* cell elsewhere speaks against that cell's class, and so still reads the decoy. All ten places are
    therefore marked in every image unless told otherwise.

    Args:
        split: ``"train"`` (60,000 images) or ``"test"`` (10,000).
        root: the folder of the data set's own four files, ``train-images-idx3-ubyte.gz`` and so on. Nothing is
            downloaded.
        kind: ``"class"``: the cell of the image's own class; ``"random"``: that of one of the nine others, drawn for
            each image; ``"none"``: the images as they are.
        annotate: ``"places"``: the ten places of all classes are irrelevant in every image; ``"instance"``: only the
            cell that is white in this one, and nothing with ``kind="none"``.
        n: only the first ``n`` images, with the same decoys as in the whole; all by default.
        seed: of ``kind="random"``, 0 or more; the same seed draws the same cells on every machine.

    Attributes:
        images: (n, 1, 28, 28) uint8, 0 to 255. Items are float32, 0 to 1; the whole would be four times as large.
        targets: (n,) int64, 0 to 9.
        masks: (n, 1, 28, 28) bool, True = relevant; with ``"places"`` one mask, seen n times.

    Items are dicts: ``image`` (1, 28, 28) float32 in [0, 1]; ``target`` () int64; ``mask`` (1, 28, 28) float32, 1 =
    relevant; ``annotated`` () bool, True.

    Raises:
        DataError: if an option is unknown, a number not whole or out of range, or the files are missing, damaged or do
            not hold images of 28 x 28 pixels and as many labels from 0 to 9.

    Example:
        >>> import gzip, tempfile
        >>> images = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(28 * 28)
        >>> labels = bytes([0, 0, 8, 1, 0, 0, 0, 1, 7])  # one black sneaker, in the data set's format
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name, content in (("images-idx3", images), ("labels-idx1", labels)):
        ...         _ = (Path(root) / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(content))
        ...     data = DecoyFashion("train", root)
        >>> item = data[0]
        >>> item["image"][0, 20:, :4].sum(1), item["mask"].sum()  # 28 * 28 pixels without ten cells of 16
        (tensor([0., 0., 0., 0., 4., 4., 4., 4.]), tensor(624.))
        >>> data[torch.arange(1)]["image"].shape  # a batch at once
        torch.Size([1, 1, 28, 28])
    """

    def __init__(
        self,
        split: Split,
        root: str | os.PathLike[str],
        kind: Kind = "class",
        *,
        annotate: Annotate = "places",
        n: int | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in (("split", split), ("kind", kind), ("annotate", annotate)):
            if value not in _OPTIONS[name]:
                raise DataError(got=f"{name}={value!r}", needed=f"one of {_OPTIONS[name]}", fix="choose one of them")
        check_whole("seed", seed, 0)
        images, targets = _read(Path(root), split)
        if n is not None:
            check_whole("n", n, 1, len(images))
        chosen = targets
        if kind == "random":
            rng = stream(_OPTIONS["split"].index(split), seed)  # all are drawn, whatever n is
            chosen = (targets + torch.from_numpy(rng.integers(1, _CLASSES, len(targets)))) % _CLASSES
        self.targets, chosen = targets[:n], chosen[:n]
        places = _places()
        white = places[chosen] if kind != "none" else torch.zeros(1, 1, _SIZE, _SIZE, dtype=torch.bool)
        self.images = images[:n, None].masked_fill(white, 255)
        irrelevant = places.any(0, keepdim=True) if annotate == "places" else white
        self.masks = (~irrelevant).expand(self.images.shape)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int | slice | Tensor) -> dict[str, Tensor]:
        """One item; a slice or a tensor of indices gives a batch of them, (n, 1, 28, 28) and (n,)."""
        targets = self.targets[index]
        return {
            "image": self.images[index].float() / 255,
            "target": targets,
            "mask": self.masks[index].float(),
            "annotated": torch.ones_like(targets, dtype=torch.bool),
        }


def _places() -> Tensor:
    """Where each class has its decoy: (10, 1, 28, 28) bool."""
    places = torch.zeros(_CLASSES, 1, _SIZE, _SIZE, dtype=torch.bool)
    for place, cell in zip(places, DECOY_CELLS, strict=True):
        row, column = divmod(cell, _SIZE // _CELL)
        place[0, row * _CELL : (row + 1) * _CELL, column * _CELL : (column + 1) * _CELL] = True
    return places


def _read(root: Path, split: Split) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) uint8 and targets (N,) int64."""
    names = {name: [f"{prefix}-{kind}-ubyte.gz" for kind in _KINDS] for name, prefix in _PREFIXES.items()}
    if missing := [name for name in names[split] if not (root / name).is_file()]:
        raise DataError(
            got=f"{root} without {' and '.join(missing)}",
            needed=f"the folder of Fashion-MNIST's four files: {', '.join(names['train'] + names['test'])}",
            fix="get them from https://github.com/zalandoresearch/fashion-mnist; this library downloads nothing",
        )
    images, labels = (read_idx(root / name, dims) for name, dims in zip(names[split], (3, 1), strict=True))
    if images.shape[1:] != (_SIZE, _SIZE) or len(images) != len(labels) or labels.max() >= _CLASSES:
        raise DataError(
            got=f"images {tuple(images.shape)} and labels {tuple(labels.shape)} up to {labels.max()} in {root}",
            needed=f"images of {_SIZE} x {_SIZE} pixels and as many labels, 0 to {_CLASSES - 1}",
            fix="give the folder of Fashion-MNIST",
        )
    return images, labels.long()
