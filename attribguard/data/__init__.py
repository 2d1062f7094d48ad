"""Data sets with a known distractor: (image, target, mask) items, a mask being 1 where the image is relevant."""

from attribguard.data.crosses import Crosses
from attribguard.data.decoy_fashion import DECOY_CELLS, DecoyFashion
from attribguard.data.idx import read_idx

__all__ = ["DECOY_CELLS", "Crosses", "DecoyFashion", "read_idx"]
