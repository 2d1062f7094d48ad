"""Where flags are set, in few of many cells."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["true_cells"]


def true_cells(flags: Tensor) -> Tensor:
    """The places of what is true, as if the tensor were flat: ``flags.flatten().nonzero()[:, 0]``, faster on a CPU.

    Args:
        flags: any shape, bool.

    Returns:
        (K,) int64 in ascending order, on the flags' device.

    Example:
        >>> true_cells(torch.tensor([[False, True], [True, False]]))
        tensor([1, 2])
    """
    if flags.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(flags.numpy()))  # ten times as fast as torch's
    return flags.flatten().nonzero()[:, 0]
