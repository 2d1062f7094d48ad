import math

import pytest
import torch
from torch import nn

from attribguard.data import LESIONS
from attribguard.reproduce import RECIPES, Run
from attribguard.reproduce.training import lesions_row
from attribguard.reproduce.training.lesion_images import draw_lesions
from attribguard.reproduce.training.lesions_row import LOSSES, train_lesions_row

CPU = torch.device("cpu")
RECIPE = RECIPES["imbalance"]
SMALL = {"train": 160, "valid": 120, "test": 120, "size": 32, "growth": 2, "channels": 2, "epochs": 1, "batch_size": 40}


def outcome(row, final=True, **settings):
    settings = {**RECIPE.sizes["default"].settings, **row.settings, **SMALL, **settings}
    return train_lesions_row(Run(settings, 0, final, None, CPU))


@pytest.mark.parametrize("row", [RECIPE.rows[1], RECIPE.rows[6], RECIPE.rows[11]], ids=lambda row: row.name)
def test_a_row_gives_every_figure_of_the_table(row):
    result = outcome(row)
    assert set(result.metrics) == {*RECIPE.metrics, "valid"}
    shares = {name: value for name, value in result.metrics.items() if name not in ("disjoint", "unique")}
    assert all(0 <= value <= 1 for value in shares.values())
    assert result.metrics["disjoint"] >= result.metrics["unique"]


def test_a_search_measures_validation_images_alone():
    assert set(outcome(RECIPE.rows[0], final=False).metrics) == {"valid"}


def test_every_loss_has_its_own_training():
    curves = [outcome(RECIPE.rows[0], final=False, loss=loss, epochs=1).curves["valid"] for loss in LOSSES]
    assert len({tuple(curve) for curve in curves}) == len(LOSSES)


def test_binary_is_any_lesion():
    drawn = draw_lesions((40, 1, 1), 32, 0).train
    target = lesions_row._as_binary(drawn).tensors["target"]
    assert target.shape == (40, 1)
    assert torch.equal(target[:, 0] == 1, (drawn.tensors["box_classes"] >= 0).any(1))


class Fixed(nn.Module):
    """Logits that were written down, by the first pixel's number."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits[x[:, 0, 0, 0].long()]


def test_figures_are_means_over_labels():
    logits = torch.tensor([[2.0, -1.0], [1.0, 3.0], [-1.0, 1.0], [-2.0, -3.0]])
    truth = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    images = lesions_row.Images({"image": torch.arange(4.0).view(4, 1, 1, 1), "target": truth})
    found = lesions_row._classified(Fixed(logits), images, CPU)
    assert found["auroc"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    # Precisions at the two hits of each label: 1 and 2/3; 1 and 2/4.
    assert found["ap"] == pytest.approx(((1 + 2 / 3) / 2 + (1 + 2 / 4) / 2) / 2)
    assert found["recall"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found["probability"] == pytest.approx(sum(1 / (1 + math.exp(-z)) for z in logits.flatten().tolist()) / 8)


def test_a_network_that_broke_down_has_no_figures():
    images = lesions_row.Images({"image": torch.zeros(2, 1, 1, 1), "target": torch.tensor([[1.0], [0.0]])})
    found = lesions_row._classified(Fixed(torch.full((1, 1), float("nan"))), images, CPU)
    assert all(math.isnan(value) for value in found.values())


class Corner(nn.Module):
    """Two maps that are the image, and logits that grow with them."""

    def __init__(self, outputs):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2, outputs, bias=False)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        nn.init.ones_(self.conv.weight)
        nn.init.ones_(self.linear.weight)

    def forward(self, x):
        return self.linear(self.pool(self.conv(x)))


@pytest.mark.parametrize(("binary", "expected"), [(False, (1 + 0.25) / 2), (True, 0.4)])
def test_each_finding_is_measured_in_its_own_boxes_and_the_binary_class_in_all(binary, expected):
    """A white square of 2 x 2 on 8 x 8 pixels; one box is that square, another one of 4 x 4 holds it."""
    image = torch.zeros(1, 1, 8, 8)
    image[..., :2, :2] = 1
    boxes, classes = torch.zeros(1, 6, 4), torch.full((1, 6), -1)
    boxes[0, 0], boxes[0, 1] = torch.tensor([0.0, 0, 2, 2]), torch.tensor([0.0, 0, 4, 4])
    if binary:
        boxes[0, 1] = torch.tensor([0.0, 2, 3, 4])  # 4 + 6 pixels together
    classes[0, :2] = torch.tensor([0, 3])
    target = torch.zeros(1, len(LESIONS))
    target[0, [0, 3]] = 1
    images = lesions_row.Images({"image": image, "boxes": boxes, "box_classes": classes, "target": target})
    images = lesions_row._as_binary(images) if binary else images
    found = lesions_row._located(Corner(1 if binary else 6), images, binary, CPU)
    assert found["IoBB minmax"] == pytest.approx(expected) and found["IoR max"] == pytest.approx(1)
