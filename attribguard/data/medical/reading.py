"""What readers of medical formats share: optional packages, files that cannot be trusted, slices brought to size."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribguard.data.medical.window import ct_window
from attribguard.data.sizes import image_to_size, mask_to_size
from attribguard.errors import DataError

__all__ = ["check_window", "fitted", "optional", "reading"]

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


def check_window(window: tuple[float, float] | None) -> None:
    """Refuse a window as :func:`attribguard.data.ct_window` does, before any file is read."""
    if window is not None:
        ct_window(torch.zeros(1), *window)


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
    return (image, mask) if size is None else (image_to_size(image, size), mask_to_size(mask, size))
