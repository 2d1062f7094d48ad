"""Under accelerate the penalty is in the loss, also in bfloat16, and batches are accumulated as asked."""

import itertools

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("accelerate", reason="accelerate is not installed (extra: test)")

from accelerate.state import AcceleratorState, GradientState

from attribguard.capture import is_hooked
from attribguard.data import Crosses
from examples import accelerate_loop as example


@pytest.fixture(autouse=True)
def _apart():
    """Accelerate keeps one state a process, which would refuse another test's precision."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def trained(accelerator, weight=10.0):
    torch.manual_seed(0)
    outs = []
    network = example.train(accelerator, Crosses("train", 48), 2, weight, batch=8, on_step=outs.append)
    return network, outs


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_penalty_is_in_the_loss_and_moves_the_weights(precision):
    accelerator = example.Accelerator(mixed_precision=precision)
    (network, outs), (plain, _) = trained(accelerator), trained(accelerator, weight=0.0)
    assert len(outs) == 12
    for out in outs:
        assert out.terms["actdiff"] > 0
        assert out.loss.item() == pytest.approx((out.terms["criterion"] + 10 * out.terms["actdiff"]).item(), rel=1e-5)
    assert not torch.allclose(network.fc.weight, plain.fc.weight, atol=1e-3)
    assert not is_hooked(network) and type(network) is type(plain) is torch.nn.Sequential


def test_weights_change_once_in_so_many_batches():
    states = []
    accelerator = example.Accelerator(gradient_accumulation_steps=4)
    guards, make = [], example.guarded

    def remember(weight):
        guards.append(make(weight))
        return guards[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "guarded", remember)
        torch.manual_seed(0)
        on_step = lambda out: states.append(guards[0].model.fc.weight.detach().clone())  # noqa: E731
        example.train(accelerator, Crosses("train", 48), 1, batch=8, on_step=on_step)
    changed = [not torch.equal(before, after) for before, after in itertools.pairwise(states)]
    assert changed == [False, False, True, False, True]  # after the fourth batch, and after the last


def test_the_command_prints_the_auc():
    app = example.typer.Typer()
    app.command()(example.main)
    done = CliRunner().invoke(app, "--images 32 --epochs 1 --precision bf16 --accumulate 2".split())
    assert done.exit_code == 0, done.output
    assert "AUC: train " in done.output
