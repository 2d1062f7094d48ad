import pytest
import torch

from attribguard.errors import RangeError
from attribguard.reproduce import RECIPES, Run
from attribguard.reproduce.training import hematoma_row
from attribguard.reproduce.training.hematoma_networks import Subject, build
from attribguard.reproduce.training.hematoma_row import train_hematoma_row

CPU = torch.device("cpu")
RECIPE = RECIPES["hematoma-mtl"]
SMALL = {"train": 16, "valid": 8, "test": 8, "leaking": 8, "epochs": 1, "embed_dim": 8, "channels": 2}
SMALL |= {"resnet_channels": 2, "batch_size": 8}
MEASURES = {f"{test} {name}" for test in ("leaking", "patients", "unseen") for name in "acc prec rec f1 auc".split()}


def settings(row, **others):
    return {**RECIPE.sizes["default"].settings, **row.settings, **SMALL, **others}


@pytest.mark.parametrize("row", RECIPE.rows, ids=lambda row: row.name)
def test_every_row_trains_and_gives_the_figures_of_its_tasks(row):
    metrics = train_hematoma_row(Run(settings(row), 0, True, None, CPU)).metrics
    segments = "iou" in row.paper or row.name in ("UNet", "Swin-Unet")
    classifies = row.name not in ("UNet", "Swin-Unet")
    assert set(metrics) == {"valid"} | ({"iou"} if segments else set()) | (MEASURES if classifies else set())
    assert all(0 <= value <= 1 for value in metrics.values())


def test_a_search_measures_validation_images_alone():
    assert set(train_hematoma_row(Run(settings(RECIPE.rows[3]), 0, False, None, CPU)).metrics) == {"valid"}


def test_the_segmentation_encoder_of_a_joint_network_is_trained_first_and_then_frozen():
    trained = []
    row = RECIPE.row("Joint-SwinTransformer")
    subject = build(settings(row), CPU, lambda module, loss: trained.append(module))
    assert len(trained) == 1 and subject.segment is None
    frozen = [parameter for parameter in subject.module.parameters() if not parameter.requires_grad]
    assert frozen and len(frozen) < len(list(subject.module.parameters()))


def test_an_unknown_network_is_refused():
    with pytest.raises(RangeError, match="network='abacus'"):
        build({"network": "abacus"}, CPU, lambda module, loss: None)


def test_leaking_slices_are_of_known_patients_and_none_was_trained_on():
    splits = hematoma_row._draw(48, 8, 8, 16, 64, 0)
    assert (len(splits.train), len(splits.tests["leaking"])) == (48, 16)
    learnt, known = (part.tensors["image"].flatten(1) for part in (splits.train, splits.tests["leaking"]))
    assert not any(bool((learnt == image).all(1).any()) for image in known)


class Written:
    """What is left of a network: logits by the number in the first pixel."""

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, x):
        return self.logits[x[:, 0, 0, 0].long()]


def test_precision_and_recall_are_of_class_1_and_f1_is_the_mean_over_both():
    answers, truth = [1, 1, 0, 0, 0, 1], [1, 0, 1, 0, 0, 1]
    logits = torch.tensor([[0.0, 1.0] if answer else [1.0, 0.0] for answer in answers])
    images = hematoma_row.Images({"image": torch.arange(6.0).view(6, 1, 1, 1), "target": torch.tensor(truth)})
    subject = Subject(torch.nn.Identity(), lambda batch: batch["image"], Written(logits), None)
    found = hematoma_row._classified(subject, images, CPU)
    assert found["acc"] == pytest.approx(4 / 6)
    assert (found["prec"], found["rec"]) == pytest.approx((2 / 3, 2 / 3))
    assert found["f1"] == pytest.approx((2 * 2 / (3 + 3) + 2 * 2 / (3 + 3)) / 2)
    # Of 3 x 3 pairs four are right, and four tie or are half right: counted by hand.
    assert found["auc"] == pytest.approx((4 + 0.5 * 4) / 9)


def test_a_class_that_is_never_answered_has_a_precision_of_zero():
    images = hematoma_row.Images({"image": torch.arange(2.0).view(2, 1, 1, 1), "target": torch.tensor([0, 1])})
    subject = Subject(torch.nn.Identity(), lambda batch: batch["image"], Written(torch.tensor([[1.0, 0.0]] * 2)), None)
    found = hematoma_row._classified(subject, images, CPU)
    assert (found["prec"], found["rec"], found["f1"]) == pytest.approx((0, 0, (2 / 3) / 2))


def test_iou_leaves_out_pixels_that_nobody_has_annotated():
    truth = torch.tensor([[[1, 1, 0, -100]]])
    drawn = torch.tensor([[[0.0, 0.0, 0.0, 0.0]], [[1.0, -1.0, 1.0, 1.0]]])[None]  # class 1 at pixels 0, 2, 3
    images = hematoma_row.Images({"image": torch.zeros(1, 1, 1, 4), "target": torch.tensor([0]), "segmentation": truth})
    subject = Subject(torch.nn.Identity(), lambda batch: batch["image"], None, lambda x: drawn)
    assert hematoma_row._iou(subject, images, CPU) == pytest.approx(1 / 3)
