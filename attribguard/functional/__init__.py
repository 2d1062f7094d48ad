"""The mathematics alone: tensors in, tensors out, no state."""

from attribguard.functional.actdiff import actdiff
from attribguard.functional.attribution_maps import normalize_attribution
from attribguard.functional.cam import class_activation_map, gradcam_plus_plus, normalize_map
from attribguard.functional.dice_ce import dice_ce
from attribguard.functional.gradmask import gradmask
from attribguard.functional.imbalance import bce, class_balanced_focal, focal, weighted_bce
from attribguard.functional.localisation import energy_inside, iobb, ior, pointing_game, soft_iobb, soft_ior
from attribguard.functional.rrr import gradcam_rrr, rrr

__all__ = [
    "actdiff",
    "bce",
    "class_activation_map",
    "class_balanced_focal",
    "dice_ce",
    "energy_inside",
    "focal",
    "gradcam_plus_plus",
    "gradcam_rrr",
    "gradmask",
    "iobb",
    "ior",
    "normalize_attribution",
    "normalize_map",
    "pointing_game",
    "rrr",
    "soft_iobb",
    "soft_ior",
    "weighted_bce",
]
