"""Data sets with a known distractor: (image, target, mask) items, a mask being 1 where the image is relevant."""

from attribguard.data.crosses import Crosses

__all__ = ["Crosses"]
