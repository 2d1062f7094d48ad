import pytest
import torch
import torchvision
from torch import nn

from attribguard import ActDiff, wrap
from attribguard.errors import RangeError
from attribguard.models import actdiff_resnet18


@pytest.mark.parametrize(("norm", "layer"), [("batch", nn.BatchNorm2d), ("none", nn.Identity)])
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_torchvisions(norm, layer, training):
    theirs = torchvision.models.resnet18(num_classes=5, norm_layer=layer).train(training)
    ours = actdiff_resnet18(5, 3, norm=norm).train(training)
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 47, 64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_what_enters_the_activations_survives_the_pass():
    model, entered = actdiff_resnet18(channels=4), []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    model(torch.rand(2, 1, 40, 40))
    assert len(entered) == 17
    assert all((x < 0).any() for x in entered)


def test_every_residual_branch_takes_part_from_the_start():
    norms = [module for module in actdiff_resnet18().modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 20
    assert all((norm.weight == 1).all() for norm in norms)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_actdiff_finds_all_seventeen_pre_activations_of_a_small_image(norm):
    model = actdiff_resnet18(channels=2, norm=norm)
    guard = wrap(model, penalties=[ActDiff(1.0)], example_input=(1, 28, 28))
    assert len(guard.layers["actdiff"]) == 17


def test_widths_follow_the_first_stage():
    model = actdiff_resnet18(7, 2, channels=3)
    assert model(torch.rand(2, 2, 28, 28)).shape == (2, 7)
    stages = (model.conv1, model.layer1, model.layer2, model.layer3, model.layer4)
    assert [next(stage.parameters()).shape[0] for stage in stages] == [64, 3, 6, 12, 24]


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"in_chans": 0}, {"channels": 0}, {"norm": "layer"}])
def test_bad_options_are_refused_by_name(options):
    with pytest.raises(RangeError, match=next(iter(options))):
        actdiff_resnet18(**options)
