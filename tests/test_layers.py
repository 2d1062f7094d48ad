"""From names and patterns to the places that are recorded."""

from types import SimpleNamespace

import pytest
from torch import nn

from attribguard.errors import LayerError
from attribguard.layers import check_layers, resolve_layers
from tests.networks import plain_cnn

POINTS = [
    "stem:input", "stem", "layer1.0.conv:input", "layer1.0.conv", "layer1.0.relu:input", "layer1.0.relu",
    "layer1.0.relu#1:input", "layer1.0.relu#1", "layer2.0.conv:input", "layer2.0.conv", "fc:input", "fc",
]  # fmt: skip


def survey(activations=(), unplaced=()):
    """The part of a `Survey` that is read here."""
    return SimpleNamespace(points=dict.fromkeys(POINTS), activations=dict.fromkeys(activations), unplaced=unplaced)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("stem",), ["stem"]),
        (("layer1.0.relu",), ["layer1.0.relu"]),
        (("layer1.0.relu#1",), ["layer1.0.relu#1"]),
        (("layer1.0.relu#1:input",), ["layer1.0.relu#1:input"]),
        (("layer?.0.conv",), ["layer1.0.conv", "layer2.0.conv"]),
        (("layer1.*",), ["layer1.0.conv", "layer1.0.relu", "layer1.0.relu#1"]),
        (("layer1.*:input",), ["layer1.0.conv:input", "layer1.0.relu:input", "layer1.0.relu#1:input"]),
        (("layer[12].0.conv",), ["layer1.0.conv", "layer2.0.conv"]),
        (("*.relu#1",), ["layer1.0.relu#1"]),
        (("fc", "stem"), ["stem", "fc"]),
        (("*.conv", "layer1.0.conv", "stem"), ["stem", "layer1.0.conv", "layer2.0.conv"]),
    ],
)
def test_names_and_patterns_stand_for_places_once_each_in_the_order_of_the_pass(layers, expected):
    assert list(resolve_layers(layers, survey())) == expected


def test_auto_stands_for_the_activations_that_were_seen():
    assert resolve_layers("auto", survey(["stem", "layer1.0.conv"])) == ("stem", "layer1.0.conv")


@pytest.mark.parametrize(("layer", "near"), [("layer3", "layer2.0.conv"), ("layer1.0.relu#2", "layer1.0.relu#1")])
def test_a_place_that_was_never_passed_is_refused_with_the_nearest_that_were(layer, near):
    with pytest.raises(LayerError) as caught:
        resolve_layers(("stem", layer), survey())
    assert repr(layer) in caught.value.got
    assert "never ran" in caught.value.got
    assert repr(near) in caught.value.fix


def test_a_pattern_that_matches_no_place_is_refused():
    with pytest.raises(LayerError, match=r"'layer9\.\*'"):
        resolve_layers(("layer9.*",), survey())


def test_auto_without_activations_is_refused():
    with pytest.raises(LayerError, match="without activations"):
        resolve_layers("auto", survey())


def test_auto_refuses_activations_without_a_place_by_their_names():
    with pytest.raises(LayerError, match="gelu in 'block'"):
        resolve_layers("auto", survey(["stem"], ["gelu in 'block'"]))


@pytest.mark.parametrize("layers", ["auto", "last", (), ("0",), ("[03]",), ("3:input", "1#1"), ("*#1:input",)], ids=str)
def test_names_and_patterns_of_modules_pass_before_the_network_has_run(layers):
    check_layers(layers, plain_cnn())


@pytest.mark.parametrize(
    ("layer", "near"), [("layer1.con", "layer1.conv"), ("layr1.conv:input", "layer1.conv"), ("layer3.*", "layer1.conv")]
)
def test_a_name_of_no_module_is_refused_with_the_nearest_names(layer, near):
    net = nn.ModuleDict({"layer1": nn.ModuleDict({"conv": nn.ReLU()}), "fc": nn.ReLU()})
    with pytest.raises(LayerError) as caught:
        check_layers(("fc", layer), net)
    assert repr(layer) in caught.value.got
    assert repr(near) in caught.value.fix


@pytest.mark.parametrize("layer", ["", ":input", "auto", "last"])
def test_the_model_itself_is_no_layer(layer):
    with pytest.raises(LayerError, match="unknown layer"):
        check_layers((layer,), plain_cnn())
