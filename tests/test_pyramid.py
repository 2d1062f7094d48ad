"""Which maps a decoder is given: the last one at each scale that the classifier reads, by name and by shape."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from attribguard.errors import LayerError
from attribguard.models import actdiff_cnn
from attribguard.pyramid import find_pyramid, named_pyramid
from attribguard.survey import survey
from tests.networks import NETWORKS, FunctionalNet


def surveyed(model, shape):
    return survey(model, torch.rand(1, *shape), lambda output: output)


def names(levels):
    return [level.point for level in levels]


def found(model, shape):
    return names(find_pyramid(surveyed(model, shape)))


EXPECTED = {
    "plain_cnn": ["5", "6"],
    "functional": ["norm1", "conv2"],
    "one_channel": ["3", "4"],
    "torchvision_resnet18": ["relu", "layer1", "layer2", "layer3", "layer4"],
    "resnet18": ["act1", "layer1", "layer2", "layer3", "layer4"],
    "densenet121": ["features.norm0", *(f"features.denseblock{i}" for i in (1, 2, 3)), "features"],
    "efficientnet_b0": ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "bn2"],
    "convnext_atto": ["stages.0", "stages.1", "stages.2", "norm_pre"],
    "swin_tiny_patch4_window7_224": ["layers.0", "layers.1", "layers.2", "norm"],
    "vit_tiny_patch16_224": ["norm"],
}
MAKE = {
    **NETWORKS,
    "resnet50": lambda: (timm.create_model("resnet50", num_classes=2), (3, 97, 131)),
    "actdiff_cnn": lambda: (actdiff_cnn(), (1, 28, 28)),
    "actdiff_cnn with BatchNorm": lambda: (actdiff_cnn(norm="batch"), (1, 28, 28)),
}
BLOCKS = ["block1", "block2", "block3", "block4"]
EXPECTED |= {"resnet50": EXPECTED["resnet18"], "actdiff_cnn": BLOCKS, "actdiff_cnn with BatchNorm": BLOCKS}


def as_map(tensor, channels):
    """By the shape alone: (N, C, h, w), (N, h, w, C) or tokens in a square behind others."""
    if tensor.dim() == 4:
        return tensor if tensor.shape[1] == channels else tensor.permute(0, 3, 1, 2)
    side = math.isqrt(tensor.shape[1])
    return tensor[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))


@pytest.mark.parametrize("name", MAKE)
def test_each_networks_last_map_at_each_scale_is_found_with_its_shape(name):
    model, shape = MAKE[name]()
    levels = find_pyramid(surveyed(model, shape))
    assert names(levels) == EXPECTED[name]
    seen = {}
    for point in names(levels):
        model.get_submodule(point).register_forward_hook(
            lambda module, args, out, point=point: seen.update({point: out})
        )
    with torch.no_grad():
        model.eval()(torch.rand(1, *shape))
    for level in levels:
        _, channels, *size = as_map(seen[level.point], level.channels).shape
        assert (channels, size) == (level.channels, list(level.size))
        assert level.octave == round(math.log2(max(shape[1] / size[0], shape[2] / size[1])))
    octaves = [level.octave for level in levels]
    assert octaves == sorted(set(octaves))


@pytest.mark.parametrize("name", ["regnety_002", "mobilenetv3_small_100", "edgenext_xx_small", "pvt_v2_b0", "dla34"])
def test_the_maps_are_those_that_timm_lists_as_the_networks_features(name):
    model = timm.create_model(name, num_classes=2)
    *finer, coarsest = model.feature_info
    levels = find_pyramid(surveyed(model, (3, 64, 64)))
    ours = [(level.point, level.channels, 2**level.octave) for level in levels[:-1]]
    assert ours == [(info["module"], info["num_chs"], info["reduction"]) for info in finer]
    # Behind the last stage some have one more layer.
    assert 2 ** levels[-1].octave == coarsest["reduction"]


def conv(channels_in, channels_out, stride=1):
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 3, stride, 1), nn.ReLU())


class UNetClassifier(nn.Module):
    """Classifies from a map that is drawn up again to the image's size."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2, self.down3 = conv(1, 4), conv(4, 8), conv(8, 16)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)
        self.up2, self.up1, self.fc = conv(24, 8), conv(12, 4), nn.Linear(4, 2)

    def forward(self, x):
        fine = self.down1(x)
        middle = self.down2(self.pool(fine))
        x = self.up2(torch.cat([self.up(self.down3(self.pool(middle))), middle], 1))
        return self.fc(self.up1(torch.cat([self.up(x), fine], 1)).mean((2, 3)))


def test_of_a_network_that_goes_up_again_the_encoders_maps_are_taken_alone():
    assert found(UNetClassifier(), (1, 32, 32)) == ["down1", "down2", "down3"]


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.pool, self.gate = nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Sigmoid())

    def forward(self, x):
        return x * self.gate(self.pool(x))


def classifier(*layers, channels):
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


def test_squeezed_features_are_no_maps():
    model = classifier(conv(1, 4, 2), SqueezeExcite(4), conv(4, 8, 2), SqueezeExcite(8), channels=8)
    assert found(model, (1, 16, 16)) == ["1", "3"]


class FunctionalPooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x).relu(), 2)
        return self.fc(F.max_pool2d(self.conv2(x).relu(), 2).mean((2, 3)))


def test_pooling_by_a_function_is_no_place_and_the_maps_before_it_are():
    assert found(FunctionalPooling(), (1, 16, 16)) == ["conv1", "conv2"]


def test_a_map_inside_a_halving_module_is_taken_where_its_scale_has_no_other_alone():
    """The first convolution of each stage still has the finer scale, as in a ResNet."""
    stage1 = nn.Sequential(conv(1, 4), nn.Conv2d(4, 8, 3, 2, 1))
    stage2 = nn.Sequential(conv(8, 16), nn.Conv2d(16, 32, 3, 2, 1))
    assert found(classifier(stage1, stage2, channels=32), (1, 16, 16)) == ["0.0", "0", "1"]


def test_each_call_of_a_reused_module_counts_for_itself():
    class Recursive(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.down, self.fc = conv(1, 4), conv(4, 4, 2), nn.Linear(4, 2)

        def forward(self, x):
            x = self.stem(x)
            for _ in range(3):
                x = self.down(x)
            return self.fc(x.mean((2, 3)))

    assert found(Recursive(), (1, 32, 32)) == ["stem", "down", "down#1", "down#2"]


class ChannelsLastNet(nn.Module):
    """Patches of 4 and of 2 pixels through linear layers; every map is (N, h, w, C)."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.merge, self.fc = (
            nn.Linear(16, 8), nn.LayerNorm(8), nn.Linear(32, 16), nn.Linear(16, 2),
        )  # fmt: skip

    def forward(self, x):
        x = self.norm(self.embed(self.patches(x.permute(0, 2, 3, 1), 4)))
        return self.fc(self.merge(self.patches(F.gelu(x), 2)).mean((1, 2)))

    @staticmethod
    def patches(x, side):
        n, height, width, channels = x.shape
        x = x.reshape(n, height // side, side, width // side, side, channels).transpose(2, 3)
        return x.reshape(n, height // side, width // side, side * side * channels)


def test_maps_with_the_channels_last_are_read_as_such():
    levels = find_pyramid(surveyed(ChannelsLastNet(), (1, 32, 24)))
    assert [(level.point, level.channels, level.size) for level in levels] == [
        ("norm", 8, (8, 6)), ("merge", 16, (4, 3)),
    ]  # fmt: skip


class Tokens(nn.Module):
    """A class token before the patches, one attention layer whose weights a module gives."""

    def __init__(self, patch=4):
        super().__init__()
        self.embed, self.token = nn.Conv2d(1, 8, patch, patch), nn.Parameter(torch.randn(1, 1, 8))
        self.query, self.key, self.softmax = nn.Linear(8, 8), nn.Linear(8, 8), nn.Softmax(-1)
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x).flatten(2).transpose(1, 2)], 1)
        weights = self.softmax(self.query(x) @ self.key(x).transpose(1, 2))
        return self.fc(self.norm(x + weights @ x)[:, 0])


def test_tokens_behind_a_class_token_are_a_map_over_the_patches():
    levels = find_pyramid(surveyed(Tokens(), (1, 16, 24)))
    assert levels[-1][1:] == (8, (4, 6), 2)
    assert levels[-1].point == "norm"


def test_the_weights_of_an_attention_are_no_map():
    """Of 16 tokens they are (N, 16, 16), the shape of 16 tokens of 16 channels; but neither axis holds channels."""

    class Pooled(Tokens):
        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)
            return self.fc((self.softmax(self.query(x) @ self.key(x).transpose(1, 2)) @ x).mean(1))

    assert found(Pooled(), (1, 16, 16)) != ["softmax"]


@pytest.mark.parametrize("shape", [(3, 16, 256), (3, 256, 16)], ids=str)
def test_in_a_long_image_a_stage_is_one_scale_whichever_side_is_short(shape):
    """16 pixels are gone at the fourth halving; the other side still tells the last two stages apart."""
    assert found(timm.create_model("resnet18", num_classes=2), shape) == EXPECTED["resnet18"]


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())]
)
def test_a_network_without_maps_has_no_levels(model):
    assert find_pyramid(surveyed(model, (1, 8, 8))) == ()


def test_the_networks_own_output_and_its_images_are_no_levels():
    fully_convolutional = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 2, 3, 2, 1))
    assert found(fully_convolutional, (1, 16, 16)) == ["0", "1"]
    assert found(nn.Conv2d(1, 2, 3, 2, 1), (1, 16, 16)) == []


@pytest.mark.parametrize("layers", [("layer3", "act1", "layer1"), ("layer1", "layer3", "act1")])
def test_named_layers_come_from_the_finest_to_the_coarsest(layers):
    levels = named_pyramid(layers, surveyed(timm.create_model("resnet18", num_classes=2), (3, 64, 64)))
    assert [tuple(level) for level in levels] == [
        ("act1", 64, (32, 32), 1), ("layer1", 64, (16, 16), 2), ("layer3", 256, (4, 4), 4),
    ]  # fmt: skip


def test_named_layers_may_be_inputs_patterns_and_several_of_one_scale():
    seen = surveyed(FunctionalNet(), (3, 24, 24))
    assert names(named_pyramid(("conv2:input", "norm1"), seen)) == ["norm1", "conv2:input"]
    assert names(named_pyramid(("conv*",), seen)) == ["conv1", "conv2"]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("6", "features without spatial extent at layer '6'"),
        ("2", "features without spatial extent at layer '2'"),
        ("4", "never ran"),
    ],
)
def test_a_layer_that_is_no_map_is_refused_by_name(layer, words):
    class Idle(nn.Sequential):
        def forward(self, x):
            for name, module in self.named_children():
                x = x if name == "4" else module(x)
            return x

    model = Idle(
        conv(1, 4, 2), conv(4, 4, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), nn.ReLU(), nn.Linear(4, 2)
    )
    with pytest.raises(LayerError, match=words):
        named_pyramid(("0", layer), surveyed(model, (1, 16, 16)))


def test_a_layer_that_gives_windows_instead_of_images_is_refused_by_name():
    """Four windows an image along the first axis: a decoder would draw four pictures of each."""

    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, x):
            windows = x.unfold(2, 8, 8).unfold(3, 8, 8).flatten(1, 3).flatten(0, 1)[:, None]
            return self.fc(self.inner(windows).mean((2, 3)).unflatten(0, (len(x), -1)).mean(1))

    with pytest.raises(LayerError, match="inner"):
        named_pyramid(("inner",), surveyed(Windows(), (1, 16, 16)))
