"""Penalties: one file each."""

from attribguard.penalties.actdiff import ActDiff
from attribguard.penalties.base import Penalty

__all__ = ["ActDiff", "Penalty"]
