"""What readers of medical formats share: optional packages, files that cannot be trusted, slices brought to size."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attribguard import masks
from attribguard.data.drawing import check_whole
from attribguard.data.files.refusals import Refusals
from attribguard.data.medical.window import ct_window
from attribguard.errors import DataError

__all__ = ["Size", "check_alike", "checked_size", "fitted", "optional", "reading", "refusing"]

Size = int | tuple[int, int] | None
_FIX = "check the file, or fetch it again"


def optional(name: str) -> Any:
    """Import a package of the extra ``medical``, which only these readers need.

    Args:
        name: of the module, ``"pydicom"`` or ``"nibabel"``.

    Returns:
        The module.

    Raises:
        DataError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise DataError(
            got=f"no {package} in this environment",
            needed=f"{package}, which reads this format",
            fix='run: pip install "attribguard[medical]"',
        ) from error


@contextmanager
def reading(path: Path, needed: str) -> Iterator[None]:
    """Turn whatever a damaged file makes a parser raise into one error that names the file.

    Args:
        path: of the file that is read within.
        needed: what it should be, for the error ("a DICOM file").

    Yields:
        Nothing.

    Raises:
        DataError: for every exception that is raised within; those of this library pass as they are.
    """
    try:
        # Parsers also warn of what they mend or miss; what matters of that is checked, and told by the error.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:  # a hostile file can reach any line of a parser
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        got = f"{path}, which cannot be read ({' '.join(words.split())})"
        raise DataError(got=got, needed=needed, fix=_FIX) from error


@contextmanager
def refusing(refusals: Refusals, file: str) -> Iterator[None]:
    """Read one file within; what is wrong with it is raised or listed.

    Args:
        refusals: what to do with the error.
        file: its name, relative to the folder.

    Yields:
        Nothing.

    Raises:
        DataError: what was raised within, if errors are to be raised.
    """
    try:
        yield
    except DataError as error:
        refusals.refuse(file, error)


def checked_size(size: Size, window: tuple[float, float] | None) -> tuple[int, int] | None:
    """Refuse a size or a window that no slice can be brought to, before any file is read.

    Args:
        size: one number for squares, (H, W), or None; in pixels.
        window: (center, width) in Hounsfield units, or None.

    Returns:
        (H, W), or None.

    Raises:
        DataError: if a side is no whole number above 0.
        RangeError: if the window's centre is not finite, or its width not finite and above 0.
    """
    if window is not None:
        ct_window(torch.zeros(1), *window)
    size = (size, size) if isinstance(size, int) else size
    for side in size or ():
        check_whole("size", side, 1)
    return size


def fitted(
    image: Tensor, mask: Tensor, size: tuple[int, int] | None, window: tuple[float, float] | None
) -> tuple[Tensor, Tensor]:
    """Bring an image and its mask to the window and the size that were asked for.

    Args:
        image: (C, H, W).
        mask: (1, H, W), in [0, 1].
        size: (h, w); as it is with None. The image is interpolated bilinearly, averaging where it shrinks; a pixel of
            the mask is relevant where at least half of it is.
        window: (center, width) in Hounsfield units; as it is with None.

    Returns:
        Image (C, h, w) and mask (1, h, w), float32.
    """
    if window is not None:  # before resizing: a metal edge must not spread beyond what the window shows
        image = ct_window(image, *window)
    if size is not None and size != tuple(image.shape[-2:]):
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        mask = masks.resize(mask[None], size, binary=True)[0]
    return image, mask


def check_alike(sizes: Sequence[tuple[str, tuple[int, ...]]], size: tuple[int, int] | None) -> None:
    """Refuse slices of several sizes, of which no batch can be made, unless they are brought to one.

    Args:
        sizes: file and (H, W) of each slice.
        size: to which they are brought, if so.

    Raises:
        DataError: if two differ and ``size`` is None.
    """
    if size is None and (other := next((one for one in sizes if one[1] != sizes[0][1]), None)):
        raise DataError(
            got=f"slices that differ in size: {sizes[0][0]} has {sizes[0][1]} and {other[0]} {other[1]}",
            needed="one size for all, or else they make no batch",
            fix="give size=(H, W)",
        )
