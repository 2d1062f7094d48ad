import json

import pytest
import torch
from torch import nn

from attribguard import cam, saliency
from attribguard.auditing.batches import read_batch
from attribguard.auditing.rows import ImageRow, image_rows, see
from attribguard.errors import ModelError, RangeError
from attribguard.functional.localisation import energy_inside
from attribguard.plain_data import typed
from tests.auditing.subjects import Corner, batches


def first():
    return read_batch(next(batches()), 0)


def test_a_batch_is_looked_at_once_and_the_figures_are_those_of_the_corners():
    network, batch = Corner(), first()
    looked, seen = see("model", network, batch)
    before = network.calls
    _, again = see("model", network, batch)
    assert network.calls == before + 1 and again == seen  # what the first look has found out is kept
    assert [one.predicted for one in seen] == batch.targets.tolist()
    assert torch.allclose(torch.tensor([one.logits for one in seen]), network(batch.images), atol=1e-6)
    assert looked.features.shape == (5, 2, 2, 2)


@pytest.mark.parametrize(("attribution", "draw"), [("gradcam", cam), ("saliency", saliency)])
def test_where_it_looks_is_measured_on_the_map_of_the_predicted_class(attribution, draw):
    torch.manual_seed(1)
    head = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 3))
    network, batch = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), head), first()
    batch = batch._replace(images=batch.images + torch.rand(batch.images.shape))
    predicted = network(batch.images).argmax(1)
    wanted, other = (
        energy_inside(draw(network, batch.images, classes), batch.regions)
        for classes in (predicted, (predicted + 1) % 3)
    )
    assert (wanted - other).abs().nan_to_num(1).max() > 0.01
    _, seen = see("model", network, batch._replace(targets=(predicted + 1) % 3), attribution)
    assert [one.where["inside"] for one in seen] == pytest.approx(
        [None if value.isnan() else value.item() for value in wanted], abs=1e-5
    )


def test_images_without_a_region_have_no_place_to_look():
    batch = first()._replace(regions=torch.zeros(5, 8, 8, dtype=torch.bool))
    _, seen = see("model", Corner(), batch)
    assert all(value is None for one in seen for value in one.where.values())


def test_one_logit_tells_two_classes():
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = Corner()

        def forward(self, x):
            z = self.network(x)
            return z[:, 1:] - z[:, :1]

    batch = first()
    _, seen = see("model", One(), batch)
    assert [one.predicted for one in seen] == batch.targets.tolist() and all(len(one.logits) == 2 for one in seen)


def test_a_class_that_the_network_does_not_have_is_refused():
    with pytest.raises(RangeError, match="class 2 for a baseline with 2 classes"):
        see("baseline", Corner(), first()._replace(targets=torch.tensor([0, 1, 2, 0, 1])))


def test_outputs_that_are_no_numbers_are_refused_with_the_images_name():
    batch = first()
    images = batch.images.clone()
    images[3] = float("nan")
    with pytest.raises(ModelError, match="not finite for image 3"):
        see("model", Corner(), batch._replace(images=images))


def test_rows_go_through_json_unchanged():
    batch = read_batch(next(batches(group=torch.arange(12))), 0)
    rows = image_rows(batch, {"model": see("model", Corner(), batch)[1]})
    assert [row.share for row in rows] == [0.25] * 5 and [row.group for row in rows] == list("01234")
    assert all(row.picture.startswith("data:image/webp") and row.outline.startswith("data:image/png") for row in rows)
    assert [typed(ImageRow, json.loads(json.dumps(row.plain()))) for row in rows] == rows
