"""Other libraries, where they are installed."""

import importlib
import importlib.metadata
from typing import Any

PEERS = ("grad-cam", "captum", "baal", "scikit-image", "scipy")


def peer(module: str) -> Any | None:
    """A module, or ``None`` where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def peer_versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
