"""Images with known truth: phantoms whose shortcut is known, and readers of real annotated data sets."""

from attribguard.data.augmentation import augment
from attribguard.data.crosses import Crosses
from attribguard.data.decoy_fashion import DECOY_CELLS, DecoyFashion
from attribguard.data.files import read_mask, read_picture
from attribguard.data.idx import read_idx
from attribguard.data.joint_sites import JointSites
from attribguard.data.medical import CtSlices, MedicalDecathlon, ct_window, read_slices
from attribguard.data.phantoms import (
    HEMATOMA_SIGNS,
    LESIONS,
    HematomaPhantom,
    LesionPhantom,
    OrganPhantom,
    SitesPhantom,
)
from attribguard.data.pictures import CHEST_FINDINGS, ChestXray14, ImageFolderWithMasks, PadChest
from attribguard.data.splits import leaking_split, split_by_group

__all__ = [
    "CHEST_FINDINGS",
    "DECOY_CELLS",
    "HEMATOMA_SIGNS",
    "LESIONS",
    "ChestXray14",
    "Crosses",
    "CtSlices",
    "DecoyFashion",
    "HematomaPhantom",
    "ImageFolderWithMasks",
    "JointSites",
    "LesionPhantom",
    "MedicalDecathlon",
    "OrganPhantom",
    "PadChest",
    "SitesPhantom",
    "augment",
    "ct_window",
    "leaking_split",
    "read_idx",
    "read_mask",
    "read_picture",
    "read_slices",
    "split_by_group",
]
