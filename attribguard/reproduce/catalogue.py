"""All tables by name."""

from __future__ import annotations

from attribguard.reproduce.recipe import Recipe
from attribguard.reproduce.recipes import (
    ACTDIFF_MASKS,
    ACTDIFF_ORGANS,
    ACTDIFF_SYNTHETIC,
    DECOY_FASHION,
    HEMATOMA_MTL,
    IMBALANCE,
    XRAY_SITES,
)

__all__ = ["RECIPES"]

_ALL = (ACTDIFF_SYNTHETIC, ACTDIFF_MASKS, ACTDIFF_ORGANS, XRAY_SITES, DECOY_FASHION, IMBALANCE, HEMATOMA_MTL)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}
"""Every table that ``attribguard reproduce`` knows."""
