"""Li et al.: what losses for imbalance do to a network's figures, its maps and its units."""

from __future__ import annotations

from attribguard.reproduce.recipe import Recipe, Row, Size
from attribguard.reproduce.training.lesions_row import train_lesions_row

__all__ = ["IMBALANCE"]

_LOSSES = ("BCE", "WBCE", "Focal", "CB-Focal")
_KEYS = ("IoBB minmax", "IoR minmax", "disjoint", "unique")
_PAPER = {  # (network, binary): IoBB, IoR, disjoint, unique of each loss
    ("T-DenseNet", False): (
        (0.2105, 0.2951, 217, 141),
        (0.2836, 0.2252, 259, 157),
        (0.1855, 0.3223, 226, 143),
        (0.2753, 0.3141, 263, 163),
    ),
    ("ResNet50", False): (
        (0.2700, 0.2401, 562, 328),
        (0.3447, 0.2060, 641, 441),
        (0.2915, 0.1845, 585, 570),
        (0.2839, 0.2375, 546, 390),
    ),
    ("T-DenseNet", True): (
        (0.2661, 0.2123, 280, 165),
        (0.2765, 0.1999, 287, 169),
        (0.2129, 0.2064, 291, 170),
        (0.2458, 0.1956, 292, 171),
    ),
    ("ResNet50", True): (
        (0.3159, 0.2084, 363, 278),
        (0.3505, 0.2021, 542, 386),
        (0.2516, 0.2042, 586, 414),
        (0.3409, 0.1955, 567, 400),
    ),
}


def _rows() -> tuple[Row, ...]:
    return tuple(
        Row(
            f"{network}, {'binary' if binary else 'multi-label'}, {loss}",
            {"network": network, "binary": binary, "loss": loss},
            {key: (float(value), None) for key, value in zip(_KEYS, figures, strict=True)},
            ("lr",),
        )
        for (network, binary), table in _PAPER.items()
        for loss, figures in zip(_LOSSES, table, strict=True)
    )


def _comparisons() -> tuple[tuple[str, str], ...]:
    """Each loss with BCE, in the same network on the same task."""
    names = [row.name for row in _rows()]
    return tuple((name, f"{name.rsplit(', ', 1)[0]}, BCE") for name in names if not name.endswith(", BCE"))


_SETTINGS = {
    "data": "lesions",
    "train": 500,
    "valid": 150,
    "test": 250,
    "size": 64,
    "growth": 8,
    "channels": 8,
    "output_stride": 8,
    "epochs": 5,
    "batch_size": 16,
    "lr": 3e-3,
    "schedule": "cosine",
    "weight_decay": 1e-6,
}
_SEARCH = {"lr": (3e-3, 1e-3)}

IMBALANCE = Recipe(
    name="imbalance",
    title="Losses for imbalance, and what they do to features",
    paper="Li et al., *Analyzing the Effects of Handling Data Imbalance on Learned Features from Medical Images by "
    "Looking Into the Models*, Tables 1 and 2, Figure 2",
    text="""Drawn chest radiographs with six kinds of lesions, of which the rarest is in 3 % of the slices
(`data.LesionPhantom`), classified kind by kind or as healthy against unhealthy. *AUROC* and *AP* are means over the
labels, *probability* is the mean predicted probability, *recall* that of the threshold 0.5. *IoBB* and *IoR* are the
soft forms on Grad-CAM, under both normalisations of the map; the paper's own figures stand beside min-max, which its
words fit. Grad-CAM ends in a ReLU, so that its least value is nearly always 0 and the two nearly always agree. *Signed*
is the same map without the ReLU, stretched from its least to its largest value; divided by its maximum, with what is
negative dropped, it would be the map with the ReLU again. *Disjoint* and *unique* count concepts and units with one, an
image, in the last map. All is measured on test images; boxes of all lesions are known.

500 images of 64 pixels where the paper has 112,120 of 224, five epochs in batches of 16 where it has 50 in batches of
512, no augmentation and no pretrained weights. The T-DenseNet grows by 8 channels where the paper's grows by 32; the
ResNet50 has 8 channels where it has 64, and its last two stages are dilated, so that its last map has 8 x 8 cells (7 x
7 in the paper). So the counts of concepts are of far fewer units, and only the order of the losses can be compared. The
cosine schedule and the weight decay are the paper's; the learning rate (3e-3 or 1e-3) was chosen with a seed of its own
by validation AUROC.""",
    metrics={
        "auroc": "AUROC",
        "ap": "AP",
        "probability": "probability",
        "recall": "recall",
        "IoBB minmax": "IoBB, min-max",
        "IoR minmax": "IoR, min-max",
        "IoBB max": "IoBB, max",
        "IoR max": "IoR, max",
        "IoBB signed minmax": "IoBB, signed, min-max",
        "IoR signed minmax": "IoR, signed, min-max",
        "disjoint": "disjoint",
        "unique": "unique",
    },
    comparisons=_comparisons(),
    differences=(
        "auroc",
        "ap",
        "probability",
        "IoBB minmax",
        "IoR minmax",
        "IoBB max",
        "IoR max",
        "IoBB signed minmax",
        "IoR signed minmax",
        "disjoint",
        "unique",
    ),
    compared="IoBB minmax",
    tolerance=0.1,
    score="valid",
    rows=_rows(),
    sizes={
        "default": Size(_SETTINGS, seeds=3, search=_SEARCH),
        "quick": Size(
            {**_SETTINGS, "epochs": 3},
            seeds=1,
            rows=tuple(row.name for row in _rows() if "multi-label" in row.name),
        ),
        "full": Size(
            {**_SETTINGS, "train": 80_000, "valid": 6_000, "test": 25_000, "size": 224, "growth": 32, "channels": 64}
            | {"output_stride": 32, "epochs": 50, "batch_size": 512, "lr": 4e-4},
            seeds=3,
        ),
    },
    train=train_lesions_row,
    takes_data="the folder of ChestX-ray14 as the NIH gives it out",
    with_data={"data": "ChestX-ray14"},
    findings="""Kind by kind, the weighted losses (WBCE, CB-Focal) raise the mean probability, and recall at 0.5 from
about a quarter to above four fifths, on every seed; AUROC and AP stay within the spread of the seeds. About twice as
many units have a concept in the boxes, in both networks and as in the paper's T-DenseNet, though only for WBCE on the
T-DenseNet and CB-Focal on the ResNet50 does the interval of three seeds leave 0 out. With the ReLU the maps do not
cover the boxes better or worse for it, as far as these intervals tell.

**The normalisation decides the sign.** With the ReLU, less of the map's mass lies in the boxes under WBCE than under
BCE on the T-DenseNet, in the direction of the paper: IoR falls by 0.115 on average (the interval holds 0). In the
signed map, stretched from its least value, more of it does: IoR rises by 0.030 (the interval leaves 0 out). CB-Focal on
the T-DenseNet and WBCE on the ResNet50 change signs in the same way. Healthy against unhealthy on the ResNet50,
CB-Focal raises IoR with the ReLU and lowers it without, and both intervals leave 0 out. Whoever reports one of these
figures without its normalisation has reported a choice. The signed columns were added after a first run of this table,
which had shown the other two to coincide; nothing else was changed.

Healthy against unhealthy there is little imbalance to handle, and little else differs: less of the boxes is covered
under CB-Focal, on both networks. Of so many comparisons some leave 0 out by chance.""",
)
