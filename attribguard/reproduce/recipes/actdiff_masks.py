"""Viviano et al., Appendix A: ActDiff where only some of the training images have a mask."""

from __future__ import annotations

from attribguard.reproduce.recipe import Recipe, Row
from attribguard.reproduce.recipes.actdiff_methods import PAPER
from attribguard.reproduce.recipes.actdiff_synthetic import synthetic_sizes
from attribguard.reproduce.training.shortcut_row import train_shortcut_row

__all__ = ["ACTDIFF_MASKS"]

_SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)
_NETWORKS = ("UNet", "ResNet")


def _rows() -> tuple[Row, ...]:
    rows = []
    for network in _NETWORKS:
        for share in _SHARES:
            settings = {"data": "files", "network": network, "method": "ActDiff", "masks": share}
            whole = f"{network}, 100 % of the masks"
            rows.append(
                Row(
                    f"{network}, {share:.0%} of the masks".replace("%", " %"),
                    settings,
                    searched=("lr", "weight"),
                    chosen_by=None if share == 1 else whole,
                )
            )
    return tuple(rows)


ACTDIFF_MASKS = Recipe(
    name="actdiff-masks",
    title="ActDiff with some of the masks",
    paper=f"{PAPER}, Appendix A, Figure 6",
    text="""The crosses of the authors' files, and ActDiff with the masks of 20 to 100 % of the 500 training images;
the images without a mask are classified like all others, and count in the penalty's denominator. The paper shows its
figures in a plot only. Networks have BatchNorm; schedule and search as in `actdiff-synthetic`; learning rate and
weight were chosen with all masks and are the same for every share.""",
    metrics={"train": "train AUC", "test": "test AUC", "inside": "inside"},
    compared="test",
    tolerance=0.1,
    score="score",
    rows=_rows(),
    sizes=synthetic_sizes(tuple(row.name for row in _rows() if row.name.startswith("UNet"))),
    train=train_shortcut_row,
    needs_data="the folder of the authors' files distractor1.npz to distractor3.npz",
    findings="""ActDiff needs few masks here: with two fifths of them both networks still stand near what they reach
with all, and the UNet nearly so with a fifth. The ResNet then falls back to the box on two seeds of three. The
saliency leaves the mask sooner than the AUC falls.""",
)
