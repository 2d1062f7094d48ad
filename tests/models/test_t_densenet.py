import pytest
import torch
from torch import nn

from attribguard.errors import RangeError
from attribguard.models import t_densenet
from tests.models.weight_files import write_weights


@pytest.fixture(scope="module")
def file_and_whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "densenet121.pth"
    return path, write_weights("densenet121", path)


def features_by_hand(whole, x):
    """The whole network up to its second dense block, and the norm that follows there."""
    parts = whole.features
    for part in (parts.conv0, parts.norm0, parts.pool0, parts.denseblock1, parts.transition1, parts.denseblock2):
        x = part(x)
    return parts.transition2.norm(x)


def test_the_size_is_the_published_one():
    assert sum(p.numel() for p in t_densenet(num_classes=14).parameters()) == 1_305_742


def test_the_last_map_has_512_channels_and_an_eighth_of_the_images_side():
    model, seen = t_densenet(num_classes=3), []
    model.features.norm5.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = model(torch.rand(1, 3, 224, 224))
    assert seen[0].shape == (1, 512, 28, 28)
    by_hand = seen[0].mean((2, 3)) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(logits, by_hand)


@pytest.mark.parametrize("num_classes", [14, 1000])
def test_pretrained_features_are_those_of_the_whole_network(file_and_whole, num_classes):
    path, whole = file_and_whole
    model = t_densenet(num_classes, pretrained=True, pretrained_cfg_overlay={"file": str(path)}).eval()
    x = torch.rand(2, 3, 48, 64)
    torch.testing.assert_close(model.forward_features(x), features_by_hand(whole, x))
    assert model(x).shape == (2, num_classes)
    # The whole network's linear layer is for other features: the new one starts as timm starts it, without bias.
    assert (model.classifier.bias == 0).all()


def test_one_channel_sees_what_the_pretrained_colours_see_of_a_gray_image(file_and_whole):
    path, whole = file_and_whole
    model = t_densenet(2, 1, pretrained=True, pretrained_cfg_overlay={"file": str(path)}).eval()
    gray = torch.rand(2, 1, 48, 48)
    torch.testing.assert_close(
        model.forward_features(gray), features_by_hand(whole, gray.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4
    )


def test_a_file_that_lacks_a_tensor_is_refused(file_and_whole, tmp_path):
    state = torch.load(file_and_whole[0])
    del state["features.conv0.weight"]
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(RuntimeError, match=r"features\.conv0\.weight"):
        t_densenet(pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "broken.pth")})


def test_options_go_to_timm_and_small_images_fit():
    model = t_densenet(2, drop_rate=0.3)
    assert model.head_drop.p == 0.3
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.3]
    assert model.eval()(torch.rand(1, 3, 5, 5)).shape == (1, 2)


@pytest.mark.parametrize("options", [{"num_classes": 0}, {"num_classes": 2, "in_chans": 0}])
def test_bad_options_are_refused_by_name(options):
    with pytest.raises(RangeError, match=list(options)[-1]):
        t_densenet(**options)
