"""Where two nested states differ in any bit."""

import torch


def differences(one, other, where=""):
    """The places, as a list; empty where the two are one."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = (one.dtype, one.shape) == (other.dtype, other.shape) and one.numpy().tobytes() == other.numpy().tobytes()
        return [] if same else [where]
    if type(one) is not type(other):
        return [f"{where}: {type(one).__name__} or {type(other).__name__}"]
    if isinstance(one, dict):
        if list(one) != list(other):
            return [f"{where}: {list(one)} or {list(other)}"]
        return [found for key in one for found in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} or {len(other)}"]
        return [
            found for i, pair in enumerate(zip(one, other, strict=True)) for found in differences(*pair, f"{where}/{i}")
        ]
    return [] if one == other else [f"{where}: {one} or {other}"]
