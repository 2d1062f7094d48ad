import importlib
import inspect
import warnings

import pytest
import timm
import torch

import attribguard as ag
from attribguard import models
from attribguard.errors import RangeError
from tests.models.weight_files import write_weights
from tests.networks import batch

# name -> small sizes, channels and side of the images
CLASSIFIERS = {
    "actdiff_cnn": ({"channels": 2}, 1, 28),
    "actdiff_resnet18": ({"channels": 4}, 1, 40),
    "joint_cnn": ({"name": "mobilenetv2_035"}, 3, 64),
    "joint_swin": ({"img_size": 32, "depths": (1, 2), "embed_dim": 12, "num_heads": (1, 2)}, 3, 32),
    "t_densenet": ({"num_classes": 2}, 3, 28),
}
WITH_WEIGHTS = {"joint_cnn", "joint_swin", "t_densenet"}


class Recorder(ag.Penalty):
    """Keeps what it sees; tests only."""

    def forward(self, trace):
        self.seen = {name: x.detach() for name, x in trace.features.items()}
        return trace.logits.sum(1)


def test_timm_lists_every_network_and_no_other():
    assert timm.list_models("attribguard_*") == [f"attribguard_{name}" for name in sorted([*CLASSIFIERS, "unet"])]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_timm_builds_the_same_network_as_the_function(name):
    options, chans, side = CLASSIFIERS[name]
    networks = []
    for build in (getattr(models, name), lambda **o: timm.create_model(f"attribguard_{name}", **o)):
        torch.manual_seed(0)
        networks.append(build(**{**options, "num_classes": 5}))
    x = torch.rand(2, chans, side, side)
    assert torch.equal(*(network.eval()(x) for network in networks))
    assert networks[0](x).shape == (2, 5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_can_be_guarded(name):
    options, chans, side = CLASSIFIERS[name]
    model = timm.create_model(f"attribguard_{name}", **options)
    recorder = Recorder(0.0, layers="auto")
    penalties = [ag.ActDiff(1.0), ag.GradMask(1.0), ag.GradCAMRRR(1.0, cam="hirescam", score="projection"), recorder]
    guard = ag.wrap(model, penalties=penalties, example_input=(chans, side, side))
    x, y, mask = batch(channels=chans, size=side)
    out = guard(x, y, mask=mask)
    out.loss.backward()
    assert out.loss.isfinite()
    assert all(out.terms[name] > 0 for name in ("actdiff", "gradmask", "gradcamrrr"))
    for parameter, p in model.named_parameters():
        assert not p.requires_grad or p.grad.isfinite().all(), parameter
        assert p.requires_grad or p.grad is None, parameter
    assert len(recorder.seen) > 2
    assert all((x < 0).any() for x in recorder.seen.values())


def test_timm_builds_the_unet():
    model = timm.create_model("attribguard_unet", channels=2, depth=2, num_classes=3, in_chans=1)
    assert model(torch.rand(2, 1, 9, 6)).shape == (2, 3, 9, 6)


@pytest.mark.parametrize("name", sorted({*CLASSIFIERS, "unet"} - WITH_WEIGHTS))
@pytest.mark.parametrize("asked", [{"pretrained": True}, {"pretrained_cfg_overlay": {"file": "weights.pth"}}])
def test_pretrained_weights_that_do_not_exist_are_refused(name, asked):
    with pytest.raises(RangeError, match=f"attribguard_{name}, of which there are none"):
        timm.create_model(f"attribguard_{name}", **asked)


def test_pretrained_weights_come_from_where_timm_is_told(tmp_path):
    whole = write_weights("densenet121", tmp_path / "densenet121.pth")
    overlay = {"file": str(tmp_path / "densenet121.pth")}
    model = timm.create_model("attribguard_t_densenet", pretrained=True, pretrained_cfg_overlay=overlay, in_chans=3)
    assert torch.equal(model.features.conv0.weight, whole.features.conv0.weight)


def test_timm_loads_a_checkpoint_of_ones_own(tmp_path):
    model = models.actdiff_cnn(channels=2)
    torch.save(model.state_dict(), tmp_path / "own.pth")
    path = str(tmp_path / "own.pth")
    loaded = timm.create_model("attribguard_actdiff_cnn", channels=2, checkpoint_path=path)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_registering_again_does_not_warn_and_serves_the_new_functions():
    registry = importlib.import_module("attribguard.models.registry")
    before = registry.attribguard_unet
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(registry)
    assert registry.attribguard_unet is not before
    assert timm.models.model_entrypoint("attribguard_unet") is registry.attribguard_unet
    assert timm.list_models("attribguard_*") == sorted(registry.__all__)


def test_what_timm_adds_to_the_module_is_there():
    registry = importlib.import_module("attribguard.models.registry")
    assert len(registry.__all__) == 6
    for name in registry.__all__:
        entry = getattr(registry, name)
        assert entry.__name__ == name and entry.__module__ == registry.__name__
        assert inspect.isfunction(entry) and name.removeprefix("attribguard_") in entry.__doc__
