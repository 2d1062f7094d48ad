"""A cheaper way to differentiate input gradients again."""

from attribguard.double_backward.mode import CheaperDoubleBackward
from attribguard.double_backward.phase import Phase

__all__ = ["CheaperDoubleBackward", "Phase"]
