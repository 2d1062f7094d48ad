"""The synthetic data of the ActDiff paper: count them, and ignore the box whose side gives the answer away."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from attribguard.data.drawing import check_whole, stream
from attribguard.data.files.npz import read_npz
from attribguard.errors import DataError

__all__ = ["Crosses"]

Split = Literal["train", "valid", "test"]
_SPLITS = ("train", "valid", "test")
_ARRAYS = ("image", "mask", "label")
_SMALLEST = 16  # pixels; the two places of the distractor and two crosses still fit with room to spare


class Crosses(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Two crosses (class 0) or one (class 1), and a distractor whose side tells the classes apart.

    In ``"train"`` the distractor, a small box, is bottom right in class 0 and bottom left in class 1. In ``"valid"``
    and ``"test"`` it is the other way round, so that a model that reads the box scores an AUC of 0.

    Source: Viviano et al., Section 4 and Figure 1, who do not say how they drew; what follows was measured in their
    files. As in those, at 28 pixels: the lines are one pixel wide; the crosses of an image are of one size, 3 or 5
    pixels across with equal chance; each lies anywhere in the image, but no two share a centre row or column; the box
    is 2 pixels high and 3 wide, 3 pixels from the edges; images hold 0 and 1 only, and the mask marks the pixels of
    the crosses.

    Departures. (1) All shapes stand apart, so that crosses can be counted and the mask never marks the box: an image
    is drawn again while crosses touch each other or one of the box's two places, be it at a corner. Both places are
    kept free in every image, or else a cross there would give away where the box is not. In the authors' files 19 % of
    the images break this rule; in 4 % a cross and the box overlap, and the mask marks both. (2) Classes are shuffled
    instead of one after the other. (3) At other sizes, lines are ``size / 28`` pixels wide, rounded, at least 1, and
    crosses, box and margins grow with them. (4) ``n`` is free; the paper has 500, 128 and 128 images, the authors'
    files 512 each.

    Args:
        split: ``"train"``, ``"valid"`` or ``"test"``; each draws its own images, also with the same seed.
        n: number of images, 1 or more, half of them in each class; class 0 gets the extra one if ``n`` is odd.
        size: height and width in pixels, 16 or more.
        seed: 0 or more; the same seed gives the same images on every machine.

    Attributes:
        images: (n, 1, size, size) float32, 0 or 1.
        targets: (n,) int64, 0 = two crosses, 1 = one cross.
        masks: (n, 1, size, size) float32, 1 = relevant (a cross), 0 = background or distractor.

    Raises:
        DataError: if ``split`` is none of the three, or a number is not whole or too small.

    Example:
        >>> data = Crosses("train", n=128, seed=1)
        >>> image, target, mask = data[0]
        >>> target, image.shape
        (tensor(0), torch.Size([1, 28, 28]))
        >>> (image - mask)[0].sum(0)[14:]  # the distractor: 3 columns of 2 pixels, in the right half
        tensor([0., 0., 0., 0., 0., 0., 0., 0., 2., 2., 2., 0., 0., 0.])
    """

    def __init__(self, split: Split, n: int, size: int = 28, seed: int = 0) -> None:
        if split not in _SPLITS:
            raise DataError(got=f"split={split!r}", needed="'train', 'valid' or 'test'", fix="give one of the three")
        for name, value, least in (("n", n, 1), ("size", size, _SMALLEST), ("seed", seed, 0)):
            check_whole(name, value, least)
        rng = stream(_SPLITS.index(split), seed)
        targets = rng.permutation(np.arange(n) % 2)
        unit = max(1, round(size / 28))  # the width of a line
        boxes = _boxes(size, unit)
        masks = np.stack([_draw_crosses(rng, boxes, unit, 2 - int(target)) for target in targets])
        on_the_left = (targets == 1) == (split == "train")
        self._store(masks | np.where(on_the_left[:, None, None], boxes[0], boxes[1]), targets, masks)

    @classmethod
    def from_npz(cls, path: str | os.PathLike[str], invert: bool = False) -> Self:
        """Read a file like those of the paper's authors (``distractor1.npz`` and so on). Never unpickles.

        Args:
            path: an ``.npz`` file with ``image`` (N, H, W), 0 or 255; ``mask`` (N, H, W), 1 where relevant, else 0;
                ``label`` (N,), 0 = two crosses, 1 = one cross; all of an integer or boolean type.
            invert: mirror images and masks left to right, which takes the distractor to the other side. All of the
                authors' files have it on the training side; the paper inverts validation and test.

        Returns:
            The file's images in its order; ``images`` and ``masks`` are (N, 1, H, W).

        Raises:
            DataError: if the file is missing or unreadable, or an array is missing, empty or not as above.

        Example:
            >>> import tempfile
            >>> image, mask = np.zeros((2, 1, 28, 28), np.uint8)
            >>> image[0, 10, 3] = 255
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     np.savez(f"{folder}/dot.npz", image=image, mask=mask, label=np.array([1]))
            ...     Crosses.from_npz(f"{folder}/dot.npz", invert=True).images.nonzero()
            tensor([[ 0,  0, 10, 24]])
        """
        arrays = _read(Path(path))
        _check_arrays(Path(path), arrays)
        images, masks = arrays["image"] == 255, arrays["mask"] == 1
        if invert:
            images, masks = images[..., ::-1], masks[..., ::-1]
        data = cls.__new__(cls)
        data._store(images, arrays["label"], masks)
        return data

    def _store(self, images: NDArray[np.bool_], targets: NDArray[np.generic], masks: NDArray[np.bool_]) -> None:
        self.images = torch.from_numpy(images[:, None].astype(np.float32, order="C"))
        self.targets = torch.from_numpy(targets.astype(np.int64))
        self.masks = torch.from_numpy(masks[:, None].astype(np.float32, order="C"))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image and mask (1, size, size) float32, target () int64, all views of the whole set's tensors."""
        return self.images[index], self.targets[index], self.masks[index]


def _boxes(size: int, unit: int) -> NDArray[np.bool_]:
    """The distractor's two places, bottom left and bottom right: (2, size, size)."""
    boxes = np.zeros((2, size, size), dtype=bool)
    boxes[0, size - 5 * unit : size - 3 * unit, 3 * unit : 6 * unit] = True
    boxes[1] = boxes[0, :, ::-1]
    return boxes


def _draw_crosses(rng: np.random.Generator, boxes: NDArray[np.bool_], unit: int, count: int) -> NDArray[np.bool_]:
    """`count` crosses that stand apart from each other and from both boxes: (size, size)."""
    # Before the loop: large crosses are turned down more often, and would then be rarer than small ones.
    cross = _cross(unit, arm=int(rng.integers(1, 3)))
    room = boxes.shape[-1] - len(cross) + 1
    while True:
        crosses = np.zeros(boxes.shape[1:], dtype=bool)
        # Without replacement: no two share a row or a column.
        for top, left in zip(rng.permutation(room)[:count], rng.permutation(room)[:count], strict=True):
            crosses[top : top + len(cross), left : left + len(cross)] |= cross
        # Shapes that overlap or touch, be it at a corner, are one connected component.
        if ndimage.label(crosses | boxes[0] | boxes[1], np.ones((3, 3)))[1] == count + 2:
            return crosses


def _cross(unit: int, arm: int) -> NDArray[np.bool_]:
    across = (2 * arm + 1) * unit
    cross = np.zeros((across, across), dtype=bool)
    line = slice(arm * unit, (arm + 1) * unit)
    cross[line], cross[:, line] = True, True
    return cross


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    arrays = read_npz(path, _ARRAYS)
    if missing := [name for name in _ARRAYS if name not in arrays]:
        raise DataError(got=f"{path} without {missing}", needed=f"the arrays {list(_ARRAYS)}", fix="add those missing")
    return arrays


def _check_arrays(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    image, mask, label = (arrays[name] for name in _ARRAYS)
    shapes = ", ".join(f"{name} {arrays[name].shape}" for name in _ARRAYS)
    if image.ndim != 3 or image.size == 0 or mask.shape != image.shape or label.shape != image.shape[:1]:
        needed = "image (N, H, W), mask (N, H, W) and label (N,), none empty"
        raise DataError(got=f"{shapes} in {path}", needed=needed, fix="save all three for the same images")
    for name, high in (("image", 255), ("mask", 1), ("label", 1)):
        values = np.unique(arrays[name])
        if values.dtype.kind not in "biu" or not np.isin(values, (0, high)).all():
            raise DataError(
                got=f"{name} of {values.dtype} with the values {values[:5].tolist()} in {path}",
                needed=f"integers or booleans that are 0 or {high}",
                fix="convert the array before saving it",
            )
