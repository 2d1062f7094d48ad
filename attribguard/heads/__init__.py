"""Auxiliary tasks on the features of the guarded network."""

from attribguard.heads.base import Head
from attribguard.heads.reconstruction import ReconstructionHead
from attribguard.heads.segmentation import SegmentationHead

__all__ = ["Head", "ReconstructionHead", "SegmentationHead"]
