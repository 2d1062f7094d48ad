"""A device by its name, refused before any work if it is not there."""

from __future__ import annotations

import torch

from attribguard.errors import RangeError

__all__ = ["as_device"]


def as_device(name: str) -> torch.device:
    """Find a device.

    Args:
        name: as torch names it, such as ``"cpu"`` or ``"cuda:1"``.

    Raises:
        RangeError: if there is none of this name, or it does not work.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RangeError(got=f"device={name!r} ({reason})", needed="a device that is there", fix="try 'cpu'") from None
    return device
