"""The tables, each as plain data."""

from attribguard.reproduce.recipes.actdiff_masks import ACTDIFF_MASKS
from attribguard.reproduce.recipes.actdiff_organs import ACTDIFF_ORGANS
from attribguard.reproduce.recipes.actdiff_synthetic import ACTDIFF_SYNTHETIC
from attribguard.reproduce.recipes.decoy_fashion import DECOY_FASHION
from attribguard.reproduce.recipes.hematoma_mtl import HEMATOMA_MTL
from attribguard.reproduce.recipes.imbalance import IMBALANCE
from attribguard.reproduce.recipes.xray_sites import XRAY_SITES

__all__ = [
    "ACTDIFF_MASKS",
    "ACTDIFF_ORGANS",
    "ACTDIFF_SYNTHETIC",
    "DECOY_FASHION",
    "HEMATOMA_MTL",
    "IMBALANCE",
    "XRAY_SITES",
]
