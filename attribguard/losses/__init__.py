"""Classification and segmentation losses as modules, each usable as the guard's criterion."""

from attribguard.losses.dice_ce import DiceCE
from attribguard.losses.imbalance import BCE, ClassBalancedFocal, Focal, WeightedBCE

__all__ = ["BCE", "ClassBalancedFocal", "DiceCE", "Focal", "WeightedBCE"]
