"""Data sets of picture files with tables: your own folder, ChestX-ray14, PadChest."""

from attribguard.data.pictures.chest_xray14 import CHEST_FINDINGS, ChestXray14
from attribguard.data.pictures.image_folder import ImageFolderWithMasks
from attribguard.data.pictures.padchest import PadChest

__all__ = ["CHEST_FINDINGS", "ChestXray14", "ImageFolderWithMasks", "PadChest"]
