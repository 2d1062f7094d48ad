import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from attribguard import ActDiff, GradMask, wrap
from attribguard.errors import ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.models import joint_classifier
from tests.networks import batch


def backbone(width=4, chans=1):
    """To a map, through everything that behaves otherwise in training."""
    convolutions = [nn.Conv2d(chans, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*convolutions, nn.Conv2d(width, width, 3))


def joint(**options):
    return joint_classifier(backbone(4), backbone(6), 3, example_input=(1, 16, 16), **options)


def test_one_linear_layer_reads_the_mean_of_both_maps():
    encoder, classifier = backbone(4), backbone(6)
    model = joint_classifier(encoder, classifier, 3, example_input=(1, 16, 16)).eval()
    x = torch.rand(5, 1, 16, 16)
    features = torch.cat([encoder(x).mean(dim=[-1, -2]), classifier(x).mean(dim=[-1, -2])], dim=1)
    torch.testing.assert_close(model(x), F.linear(features, model.head.weight, model.head.bias))
    assert features.shape == (5, 10)


def test_features_are_read_as_they_are():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    model = joint_classifier(flat, nn.Conv2d(1, 6, 3), example_input=(1, 8, 8))
    x = torch.rand(2, 1, 8, 8)
    by_hand = flat(x) @ model.head.weight[:, :5].T + model.classifier(x).mean((2, 3)) @ model.head.weight[:, 5:].T
    torch.testing.assert_close(model(x), by_hand + model.head.bias)


@pytest.mark.parametrize(
    "name", ["resnet18", "efficientnet_b0", "mobilenetv3_small_100", "convnext_atto", "levit_128s"]
)
def test_what_timm_tells_is_what_a_dry_run_measures(name):
    encoder, classifier = timm.create_model(name, num_classes=0), timm.create_model("resnet10t", num_classes=7)
    told = joint_classifier(encoder, classifier)
    measured = joint_classifier(encoder, classifier, example_input=(3, 224, 224))
    assert told.head.in_features == measured.head.in_features
    assert told.eval()(torch.rand(1, 3, 224, 224)).shape == (1, 2)


def test_a_dry_run_leaves_no_trace():
    encoder, classifier = backbone(), backbone()
    before = [copy.deepcopy(network.state_dict()) for network in (encoder, classifier)]
    joint_classifier(encoder, classifier, freeze=False, example_input=(1, 16, 16))
    assert encoder.training and classifier.training
    for network, tensors in zip((encoder, classifier), before, strict=True):
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in network.state_dict().items())


def test_training_leaves_a_frozen_encoder_as_it_was():
    model, x = joint().train(), torch.rand(8, 1, 16, 16)
    before = copy.deepcopy(model.segmentation_encoder.state_dict())
    features = model.segmentation_encoder(x)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    first = copy.deepcopy(model.classifier.state_dict())
    for _ in range(2):
        model.train()
        F.cross_entropy(model(x), torch.arange(8) % 3).backward()
        optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.segmentation_encoder.state_dict().items())
    assert torch.equal(model.segmentation_encoder(x), features)  # neither dropout nor batch statistics
    assert not any(torch.equal(tensor, first[name]) for name, tensor in model.classifier.state_dict().items())


def test_modes_reach_everything_but_a_frozen_encoder():
    for freeze in (True, False):
        model = joint(freeze=freeze)
        assert {m.training for m in model.segmentation_encoder.modules()} == {not freeze}
        for mode in (True, False, True):
            assert model.train(mode) is model
            assert {m.training for m in model.segmentation_encoder.modules()} == {mode and not freeze}
            assert {m.training for m in model.classifier.modules()} == {mode}
            assert model.training is mode and model.head.training is mode
        wrap(model, penalties=[ActDiff(1.0)]).train()
        assert model.segmentation_encoder.training is not freeze


def test_the_image_gets_a_gradient_through_the_frozen_encoder():
    model = joint().eval()
    with torch.no_grad():
        model.head.weight[:, 4:] = 0  # nothing of the other one
    x = torch.rand(2, 1, 16, 16, requires_grad=True)
    model(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.segmentation_encoder.parameters())


def test_without_freezing_everything_learns():
    model = joint(freeze=False)
    model(torch.rand(4, 1, 16, 16)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_penalty_may_name_the_classifiers_layers_alone():
    guard = wrap(joint(), penalties=[ActDiff(1.0, layers=["classifier.*"]), GradMask(1.0)])
    x, y, mask = batch(size=16, classes=3)
    guard(x, y, mask=mask).loss.backward()
    assert {layer.split(".")[0] for layer in guard.layers["actdiff"]} == {"classifier"}
    assert all(p.grad.isfinite().all() for p in guard.model.classifier.parameters())


def test_a_checkpoint_holds_both_backbones():
    model, other, x = joint().eval(), joint().eval(), torch.rand(2, 1, 16, 16)
    assert not torch.equal(model(x), other(x))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(x), other(x))


class Pair(nn.Module):
    """Gives two maps, as timm's `features_only` does."""

    def forward(self, x):
        return [x, x]


@pytest.mark.parametrize(
    ("encoder", "options", "error", "named"),
    [
        ("resnet18", {}, TypeMismatchError, "a segmentation_encoder of str"),
        (backbone(), {"num_classes": 0}, RangeError, "num_classes"),
        (backbone(), {}, ModelError, "a segmentation_encoder that does not tell"),
        (backbone(), {"example_input": (16, 16)}, ShapeError, "example_input"),
        (backbone(), {"example_input": 16}, RangeError, "example_input=16"),
        (backbone(), {"example_input": (1, 16, 0)}, RangeError, r"example_input\[2\]"),
        (Pair(), {"example_input": (1, 16, 16)}, ShapeError, "a list from a backbone"),
        (nn.Flatten(1, 2), {"example_input": (1, 16, 16)}, ShapeError, r"shape \(1, 16, 16\) from a backbone"),
    ],
)
def test_bad_backbones_are_refused_and_stay_as_they_are(encoder, options, error, named):
    classifier = backbone()
    with pytest.raises(error, match=named):
        joint_classifier(encoder, classifier, **options)
    networks = [network for network in (encoder, classifier) if isinstance(network, nn.Module)]
    assert all(p.requires_grad for network in networks for p in network.parameters())
    assert all(network.training for network in networks)


def test_one_network_cannot_be_both():
    network = backbone()
    with pytest.raises(ModelError, match="one network as both"):
        joint_classifier(network, network, example_input=(1, 16, 16))


def test_a_timm_model_without_pooling_is_refused():
    models = [timm.create_model("resnet10t", num_classes=0, global_pool=pool) for pool in ("", "avg")]
    with pytest.raises(ShapeError, match="leave timm its global pooling"):
        joint_classifier(*models, example_input=(3, 64, 64))
