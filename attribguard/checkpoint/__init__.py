"""Checkpoints, from which a training that was interrupted goes on as if it had not been."""

from attribguard.checkpoint.resumable_loader import ResumableLoader
from attribguard.checkpoint.training_state import load, save

__all__ = ["ResumableLoader", "load", "save"]
