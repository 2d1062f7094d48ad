"""Viviano et al., Section 6: two hospitals, of which one has nearly all the patients in training."""

from __future__ import annotations

from attribguard.reproduce.recipe import Recipe, Row, Size
from attribguard.reproduce.recipes.actdiff_methods import PAPER
from attribguard.reproduce.training.shortcut_row import train_shortcut_row

__all__ = ["XRAY_SITES"]

_TUNED = ("lr", "weight")
_ROWS = (
    Row("classify", {"method": "classify"}, {"test": (0.44, None)}, ("lr",)),
    Row("ActDiff", {"method": "ActDiff"}, searched=_TUNED),
    Row("GradMask", {"method": "GradMask"}, searched=_TUNED),
    Row("masked in training and test", {"method": "masked throughout"}, searched=("lr",)),
    Row("classify, sites say nothing", {"method": "classify", "strength": 0.5}, {"test": (0.70, None)}, ("lr",)),
)
_SETTINGS = {
    "data": "sites",
    "train": 998,
    "valid": 498,
    "test": 504,
    "size": 64,
    "strength": 0.9,
    "dilate": 0,
    "masks": 1.0,
    "keep_maps": True,
    "network": "ResNet",
    "channels": 8,
    "norm": "batch",
    "weight": 1.0,
    "lr": 3e-3,
    "epochs": 6,
    "batch_size": 32,
    "schedule": "cooldown",
    "reconstruction": 0.0,
    "reconstruction_loss": "mse",
}

XRAY_SITES = Recipe(
    name="xray-sites",
    title="Two sites, one of them with nearly all the patients",
    paper=f"{PAPER}, Section 6, Figure 5b",
    text="""In training 90 % of the unhealthy come from one site and 90 % of the healthy from the other; in validation
and *test* it is the reverse, and *seen* has the correlation of the training. The images are drawn
(`data.SitesPhantom`): the sites differ at the border, which the masks leave out, and in brightness and noise, which
are everywhere. So a method that hides the border alone can mend a part of the shortcut and no more. The paper's
figures are read off its text, for emphysema in PadChest and ChestX-ray8; it names 0.44 and 0.7, and no other number.

998, 498 and 504 images as in the paper, at 64 pixels where it has 128; a ResNet-18 with 8 channels where it has 64; the
last of 6 epochs where it takes the best validation epoch of 100. Learning rate (3e-3 or 1e-3) and then the weight
(1 or 10) were chosen with a seed of their own by the lower of training and validation AUC.""",
    metrics={"train": "train AUC", "seen": "seen AUC", "test": "test AUC", "inside": "inside"},
    compared="test",
    tolerance=0.1,
    score="score",
    rows=_ROWS,
    sizes={
        "default": Size(_SETTINGS, seeds=3, search={"lr": (3e-3, 1e-3), "weight": (1.0, 10.0)}),
        "quick": Size({**_SETTINGS, "epochs": 5}, seeds=1),
        "full": Size(
            {**_SETTINGS, "size": 128, "channels": 64, "schedule": "constant", "epochs": 100, "lr": 1e-3}, seeds=10
        ),
    },
    train=train_shortcut_row,
    takes_data="a folder with padchest and chest-xray14 in it",
    with_data={"data": "site folders"},
    findings="""Where the sites speak, the network reads the site: its AUC is far below one half in the test, and above
0.9 where the correlation holds. Neither ActDiff nor GradMask mends that, and neither does hiding everything outside
the masks in training and test, the upper bound of what masks can do: brightness and noise tell the site as well, and
no mask hides them. Most of the saliency lies inside the masks in every row, so that a map inside a mask is no sign of
the right reasons. Where the sites say nothing the network classifies about as well as the paper's. That the plain
network stands lower than the paper's 0.44 is a matter of the drawn sites, which are easier to tell apart.""",
)
