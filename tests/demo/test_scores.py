import pytest
import torch
from torch import nn

from attribguard.demo.scores import measure
from attribguard.demo.splits import Split, Splits


class Reader(nn.Module):
    """Gives the logits (0, gain · first pixel - last pixel): a margin that a test can choose."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        margin = self.gain * x[:, 0, 0, 0] - x[:, 0, -1, -1]
        return torch.stack([torch.zeros_like(margin), margin], dim=1)


def split(margins, targets):
    """Images that `Reader` gives these margins; the mask is one pixel, two columns and rows from the last one."""
    images, masks = torch.zeros(2, len(targets), 1, 4, 4)
    images[:, 0, 0, 0] = torch.tensor(margins)
    masks[:, 0, 1, 1] = 1
    return Split(images, torch.tensor(targets), masks)


def pairs_in_order(margins, targets):
    """AUC from its definition: how often an image of class 1 stands above one of class 0, ties counting half."""
    ones = [margin for margin, target in zip(margins, targets, strict=True) if target == 1]
    zeros = [margin for margin, target in zip(margins, targets, strict=True) if target == 0]
    wins = sum((one > zero) + 0.5 * (one == zero) for one in ones for zero in zeros)
    return wins / (len(ones) * len(zeros))


def test_aucs_are_those_of_their_own_split_however_large_or_equal_the_margins_are():
    cases = [
        ([60.0, 70.0, 65.0, 80.0, -90.0], [0, 0, 1, 1, 1]),  # sigmoid would round all but the last to 1
        ([0.3, 0.3, 0.3, 0.1], [1, 0, 1, 0]),
        ([-1.0, 2.0, 1.0], [0, 1, 1]),
    ]
    scores = measure(Reader(gain=1.0), Splits(*(split(*case) for case in cases)), pixels=0)
    expected = [pairs_in_order(*case) for case in cases]
    assert [scores.train_auc, scores.valid_auc, scores.test_auc] == pytest.approx(expected)
    assert expected == pytest.approx([3 / 6, 3 / 4, 1.0])


def test_a_network_that_always_says_the_same_scores_a_half():
    same = split([1.0] * 4, [0, 0, 1, 1])
    scores = measure(Reader(gain=0.0), Splits(same, same, same), pixels=0)
    assert scores.train_auc == scores.valid_auc == scores.test_auc == 0.5


@pytest.mark.parametrize(("pixels", "inside"), [(0, 0.0), (1, 0.75), (2, 1.0)])
def test_inside_counts_the_grown_masks_of_the_test_split_only(pixels, inside):
    """The reader's saliency is 3 at the first pixel, 1 at the last; the mask grows from (1, 1)."""
    test = split([1.0, 2.0], [0, 1])
    elsewhere = Split(test.images, test.targets, torch.zeros_like(test.masks))
    assert measure(Reader(gain=3.0), Splits(elsewhere, elsewhere, test), pixels).inside == pytest.approx(inside)
