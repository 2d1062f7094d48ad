"""The mathematics alone: tensors in, tensors out, no state."""

from attribguard.functional.actdiff import actdiff

__all__ = ["actdiff"]
