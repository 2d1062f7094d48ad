import math

import pytest
import torch
from torch import nn

from attribguard.reproduce.training.images import Images, accuracy, auc, logits_of

CPU = torch.device("cpu")


class Column(nn.Module):
    """Logits 0 and the first pixel."""

    def forward(self, x):
        return torch.stack([torch.zeros(len(x)), x[:, 0, 0, 0]], 1)


def images(margins, targets):
    return Images({"image": torch.tensor(margins).view(-1, 1, 1, 1), "target": torch.tensor(targets)})


def test_logits_come_in_the_order_of_the_images_across_slices():
    margins = torch.randn(601).tolist()
    logits, targets = logits_of(Column(), images(margins, [0, 1] * 300 + [0]), CPU)
    assert logits[:, 1].tolist() == pytest.approx(margins) and targets.tolist() == [0, 1] * 300 + [0]


def test_accuracy_is_the_share_of_right_answers():
    assert accuracy(Column(), images([1.0, 2.0, -1.0, -2.0], [1, 0, 0, 0]), CPU) == 0.75


def test_auc_is_the_share_of_pairs_in_the_right_order_ties_counting_half():
    margins, targets = [1.0, 2.0, 2.0, -3.0, 0.5], [1, 1, 0, 0, 0]
    pairs = [(p > n) + 0.5 * (p == n) for p in (1.0, 2.0) for n in (2.0, -3.0, 0.5)]
    assert auc(Column(), images(margins, targets), CPU) == pytest.approx(sum(pairs) / len(pairs))


def test_auc_tells_large_margins_apart():
    assert auc(Column(), images([100.0, 200.0], [0, 1]), CPU) == 1.0


def test_auc_of_a_network_that_broke_down_is_no_number():
    assert math.isnan(auc(Column(), images([1.0, float("nan")], [0, 1]), CPU))
