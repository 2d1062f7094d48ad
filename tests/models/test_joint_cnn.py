import pytest
import timm
import torch

from attribguard.errors import RangeError
from attribguard.models import joint_cnn
from tests.models.weight_files import write_weights


def test_the_default_is_two_efficientnets_of_size_b0():
    model = joint_cnn()
    one = sum(p.numel() for p in timm.create_model("efficientnet_b0", num_classes=0).parameters())
    assert sum(p.numel() for p in model.parameters()) == 2 * one + 2 * 1280 * 2 + 2
    assert model.eval()(torch.rand(2, 3, 64, 64)).shape == (2, 2)


def test_a_trained_encoder_is_taken_as_it_is_and_frozen():
    encoder = timm.create_model("resnet10t", num_classes=0, in_chans=1)
    model = joint_cnn(4, segmentation_encoder=encoder, name="resnet10t", in_chans=1)
    assert model.segmentation_encoder is encoder
    assert model.frozen and not any(p.requires_grad for p in encoder.parameters())
    assert model.eval()(torch.rand(2, 1, 64, 64)).shape == (2, 4)


def test_pretrained_weights_reach_both(tmp_path):
    whole = write_weights("resnet10t", tmp_path / "resnet10t.pth")
    overlay = {"file": str(tmp_path / "resnet10t.pth")}
    model = joint_cnn(name="resnet10t", pretrained=True, pretrained_cfg_overlay=overlay)
    for network in (model.segmentation_encoder, model.classifier):
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, whole.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "named"),
    [({"num_classes": 0}, "num_classes"), ({"in_chans": 0}, "in_chans"), ({"name": "efficientnet_z9"}, "name")],
)
def test_bad_options_are_refused_by_name(options, named):
    with pytest.raises(RangeError, match=named):
        joint_cnn(**options)
