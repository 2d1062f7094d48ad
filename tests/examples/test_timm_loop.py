"""The timm loop at a small size: the penalty arrives; average, rate and clipping are what they should be."""

import math

import pytest
import timm
import torch

from attribguard.capture import is_hooked
from attribguard.data import Crosses
from examples import timm_loop as example

NAME = "attribguard_actdiff_cnn"
EPOCHS, STEPS = 5, 10


def network():
    torch.manual_seed(0)
    return timm.create_model(NAME, in_chans=1, num_classes=2, channels=2, norm="batch")


def weights(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def train(model, **options):
    torch.manual_seed(1)
    return example.train(model, Crosses("train", 64), EPOCHS, **options)


@pytest.fixture(scope="module")
def trained():
    """A network, its average, and what each step gave and left behind."""
    model, outs, states, rates, norms = network(), [], [], [], []

    def clip(parameters, *args, **options):
        parameters = list(parameters)
        clip_grad(parameters, *args, **options)
        norms.append(torch.cat([parameter.grad.flatten() for parameter in parameters]).norm().item())

    def make(*args, **options):
        optimizers.append(make_optimizer(*args, **options))
        return optimizers[0]

    def on_step(out):
        outs.append(out)
        states.append(weights(model))
        rates.append(optimizers[0].param_groups[0]["lr"])

    optimizers, clip_grad, make_optimizer = [], example.dispatch_clip_grad, example.create_optimizer_v2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "dispatch_clip_grad", clip)
        patch.setattr(example, "create_optimizer_v2", make)
        average = train(model, rate=0.01, clip=0.1, on_step=on_step)
    return model, average, outs, states, rates, norms


def test_the_penalty_is_in_the_loss_in_full_precision(trained):
    outs = trained[2]
    assert len(outs) == STEPS
    for out in outs:
        assert out.logits.dtype == torch.bfloat16 and out.terms["actdiff"].dtype == torch.float32
        assert out.terms["actdiff"] > 0
        assert out.loss.item() == pytest.approx((out.terms["criterion"] + 10 * out.terms["actdiff"]).item(), rel=1e-5)


def test_the_penalty_moves_the_weights(trained):
    plain = network()
    train(plain, rate=0.01, clip=0.1, weight=0.0)
    assert not torch.allclose(weights(plain), weights(trained[0]), atol=1e-3)


def test_the_average_follows_the_network(trained):
    """Each step's decay is 1 - step^(-2/3), timm's warm-up, in which the first two steps are taken whole."""
    model, average, _, states, *_ = trained
    expected = states[0]
    for step, state in enumerate(states, start=1):
        decay = 1 - max(1, step) ** (-2 / 3) if step > 1 else 0.0
        expected = decay * expected + (1 - decay) * state
    torch.testing.assert_close(weights(average.module), expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(weights(average.module), weights(model))
    running = [dict(each.named_buffers())["block1.1.running_mean"] for each in (average.module, model)]
    assert running[0].abs().sum() > 0 and not torch.equal(*running)


def test_the_rate_rises_and_falls_to_nothing(trained):
    rates = trained[4]
    expected = [0.01 * (1 + math.cos(math.pi * step / (STEPS - 1))) / 2 for step in range(STEPS)]
    assert rates == pytest.approx(expected, abs=1e-8)


def test_gradients_are_clipped(trained):
    norms = trained[5]
    assert len(norms) == STEPS
    assert max(norms) == pytest.approx(0.1, rel=1e-3)


def test_nothing_is_left_on_either_network(trained):
    assert not is_hooked(trained[0]) and not is_hooked(trained[1].module)
