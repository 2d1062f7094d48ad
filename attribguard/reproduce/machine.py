"""On what a training ran: figures and seconds are worth little without it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np
import timm
import torch

import attribguard

__all__ = ["describe_machine", "versions"]


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Processor, cores, and the accelerator if there is one.

    Args:
        device: where the training ran.
    """
    machine: dict[str, str | int] = {"processor": _processor(), "cores": os.cpu_count() or 1, "device": device.type}
    if device.type == "cuda":
        machine["device"] = torch.cuda.get_device_name(device)
    return machine


def versions() -> dict[str, str]:
    """Of everything whose change could move a figure."""
    return {
        "attribguard": attribguard.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": timm.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    """Its name where Linux tells it, otherwise the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
