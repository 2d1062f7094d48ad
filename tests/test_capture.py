"""Hooks that are always there and do nothing until a pass is recorded."""

import pickle

import pytest
import torch
from torch import nn

from attribguard.capture import Capture, is_hooked
from attribguard.errors import LayerError
from tests.networks import plain_cnn


@pytest.fixture
def hooked():
    model, capture = plain_cnn(inplace=True), Capture()
    capture.install(model, ["0", "1:input", "1"])
    return model, capture


def test_what_was_asked_for_is_taken_before_it_is_overwritten(hooked):
    model, capture = hooked
    x = torch.randn(2, 1, 6, 6)
    with capture.record(["0", "1"]) as recording:
        model(x)
    taken = recording.complete()
    expected = nn.functional.conv2d(x, model[0].weight, model[0].bias, padding=1)
    assert torch.equal(taken["0"], expected)
    assert torch.equal(taken["1"], expected.relu())


def test_nothing_is_taken_outside_a_recording(hooked):
    model, capture = hooked
    with capture.record(["0"]) as recording:
        model(torch.randn(2, 1, 6, 6))
    before = recording.complete()["0"]
    model(torch.randn(2, 1, 6, 6))
    assert recording.complete()["0"] is before
    assert capture.recording is None


def test_a_pass_can_end_at_the_last_layer(hooked):
    model, capture = hooked
    ran = []
    model[3].register_forward_hook(lambda module, args, out: ran.append(1))
    with capture.record(["1:input"], stop_when_complete=True) as recording:
        model(torch.randn(2, 1, 6, 6))
    assert list(recording.complete()) == ["1:input"]
    assert ran == []


def test_a_model_that_catches_every_exception_does_not_catch_the_end_of_the_pass(hooked):
    model, capture = hooked

    def stubborn(x):
        try:
            return model(x)
        except Exception:
            return None

    with capture.record(["0"], stop_when_complete=True) as recording:
        stubborn(torch.randn(2, 1, 6, 6))
        pytest.fail("the pass went on")
    assert recording.complete()


def test_a_layer_that_never_ran_or_gives_no_tensor_is_named(hooked):
    model, capture = hooked
    with capture.record(["0", "1#1"]) as recording:
        model(torch.randn(2, 1, 6, 6))
    with pytest.raises(LayerError, match=r"1#1.*never ran"):
        recording.complete()
    pair = nn.LSTM(4, 4)
    capture.install(nn.Sequential(pair), ["0"])
    other = Capture()
    other.install(nn.Sequential(pair), ["0"])
    with pytest.raises(LayerError, match="a tuple at layer '0'"), other.record(["0"]):
        pair(torch.randn(2, 3, 4))


def test_hooks_go_and_only_those_of_this_capture(hooked):
    model, capture = hooked
    other = Capture()
    other.install(model, ["0"])
    capture.remove()
    assert is_hooked(model)
    other.remove()
    assert not is_hooked(model)


def test_hooks_survive_pickling(hooked):
    model, capture = pickle.loads(pickle.dumps(hooked))
    with capture.record(["0"]) as recording:
        model(torch.randn(2, 1, 6, 6))
    assert recording.complete()
    capture.remove()
    assert not is_hooked(model)
