"""Data sets whose shortcut is known, and readers of real annotated ones."""

from attribguard.data.augmentation import augment
from attribguard.data.crosses import Crosses
from attribguard.data.decoy_fashion import DECOY_CELLS, DecoyFashion
from attribguard.data.files import read_mask, read_picture
from attribguard.data.idx import read_idx
from attribguard.data.joint_sites import JointSites
from attribguard.data.medical import CtSlices, MedicalDecathlon, ct_window, read_slices
from attribguard.data.pictures import CHEST_FINDINGS, ChestXray14, ImageFolderWithMasks, PadChest
from attribguard.data.splits import leaking_split, split_by_group

__all__ = [
    "CHEST_FINDINGS",
    "DECOY_CELLS",
    "ChestXray14",
    "Crosses",
    "CtSlices",
    "DecoyFashion",
    "ImageFolderWithMasks",
    "JointSites",
    "MedicalDecathlon",
    "PadChest",
    "augment",
    "ct_window",
    "leaking_split",
    "read_idx",
    "read_mask",
    "read_picture",
    "read_slices",
    "split_by_group",
]
