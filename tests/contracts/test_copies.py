"""A guard can be copied, pickled, saved, moved, cast and laid out like any module."""

import copy
import io
import pickle

import pytest
import torch

import attribguard as ag
from attribguard.capture import is_hooked
from tests.networks import batch, plain_cnn


def guarded(channels=1):
    model = plain_cnn(channels, norm=True, inplace=True)
    return ag.wrap(model, penalties=[ag.ActDiff(5.0, corruption="zero")], example_input=(channels, 12, 12))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda guard: pickle.loads(pickle.dumps(guard))])
def test_a_copy_gives_the_same_loss_and_shares_nothing(copied):
    guard = guarded()
    twin = copied(guard)
    x, y, mask = batch()
    ours, theirs = guard(x, y, mask=mask), twin(x, y, mask=mask)
    assert torch.equal(ours.loss, theirs.loss)
    assert theirs.terms["actdiff"] > 0
    theirs.loss.backward()
    assert all(p.grad is None for p in guard.parameters())
    twin.unwrap()
    assert is_hooked(guard.model)
    assert not is_hooked(twin.model)
    assert guard(x, y, mask=mask).terms["actdiff"] > 0


def test_state_dict_round_trip_with_weights_only():
    guard, other = guarded(), guarded()
    file = io.BytesIO()
    torch.save(guard.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x, y, mask = batch()
    assert torch.equal(guard(x, y, mask=mask).loss, other(x, y, mask=mask).loss)
    assert list(guard.state_dict()) == [f"model.{key}" for key in guard.model.state_dict()]


def test_bfloat16_autocast_computes_the_penalty_in_float32():
    guard = guarded()
    x, y, mask = batch()
    full = guard(x, y, mask=mask).terms["actdiff"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = guard(x, y, mask=mask)
    out.loss.backward()
    assert out.logits.dtype == torch.bfloat16
    assert out.terms["actdiff"].dtype == torch.float32
    torch.testing.assert_close(out.terms["actdiff"], full, rtol=2e-2, atol=0)
    assert all(p.grad.isfinite().all() for p in guard.parameters())


def test_moving_to_float64_after_wrap():
    guard = guarded().double()
    x, y, mask = batch(dtype=torch.float64)
    assert guard(x, y, mask=mask).terms["actdiff"].dtype == torch.float64


def test_channels_last_gives_the_same_numbers():
    guard = guarded(channels=3)
    x, y, mask = batch(channels=3)
    expected = guard(x, y, mask=mask).loss
    guard = guard.to(memory_format=torch.channels_last)
    loss = guard(x.contiguous(memory_format=torch.channels_last), y, mask=mask).loss
    loss.backward()
    torch.testing.assert_close(loss, expected)


def test_image_sizes_may_vary_between_batches():
    guard = guarded()
    for size in (12, 19, 33):
        x, y, mask = batch(size=size)
        assert guard(x, y, mask=mask).terms["actdiff"] > 0


def test_gradients_pass_through_activation_checkpointing():
    class Checkpointed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = plain_cnn()

        def forward(self, x):
            x = torch.utils.checkpoint.checkpoint(self.net[:4], x, use_reentrant=False)
            return self.net[4:](x)

    model = Checkpointed()
    plain = ag.wrap(model.net, penalties=[ag.ActDiff(5.0, corruption="zero")], example_input=(1, 12, 12))
    x, y, mask = batch()
    expected = plain(x, y, mask=mask)
    expected.loss.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    plain.unwrap()
    model.zero_grad()
    guard = ag.wrap(model, penalties=[ag.ActDiff(5.0, corruption="zero")], example_input=(1, 12, 12))
    out = guard(x, y, mask=mask)
    out.loss.backward()
    torch.testing.assert_close(out.loss, expected.loss)
    for ours, theirs in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(ours.grad, theirs)
