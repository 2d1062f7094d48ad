"""All three tasks are trained, each through its own part of the loss, and measured in both kinds of hospitals."""

import math

import pytest
import torch
from typer.testing import CliRunner

from attribguard.data import HematomaPhantom
from examples import hematoma_mtl as example


def run(*options):
    app = example.typer.Typer()
    app.command()(example.main)
    return CliRunner().invoke(app, list(options))


def slices(split, n):
    return list(HematomaPhantom(split, n, example.SIZE))


def test_every_term_falls_and_every_decoder_learns():
    torch.manual_seed(0)
    guard = example.guard_of(("cls", "seg", "rec"))
    before = {name: parameter.detach().clone() for name, parameter in guard.named_parameters()}
    terms = list(example.train(guard, slices("train", 16), epochs=8, batch=8, rate=3e-3))
    assert set(terms[0]) == {"criterion", "segmentation", "reconstruction"}
    for name in ("segmentation", "reconstruction"):
        assert terms[-1][name] < 0.8 * terms[0][name]
    still = [name for name, parameter in guard.named_parameters() if torch.equal(parameter, before[name])]
    assert not still


def test_slices_that_nobody_annotated_teach_no_segmentation():
    guard = example.guard_of(("cls", "seg"))
    terms = next(example.train(guard, slices("unseen", 4), epochs=1, batch=4))
    assert terms["segmentation"] == 0 < terms["criterion"]
    assert all(not parameter.grad.any() for parameter in guard.heads["segmentation"].decoder.parameters())


def test_dice_and_error_are_those_of_what_is_drawn():
    torch.manual_seed(0)
    guard, data = example.guard_of(("cls", "seg", "rec")), slices("test", 12)
    found = example.evaluate(guard, data)
    dices, errors = [], []
    for item in data:
        with torch.no_grad():
            drawn = guard.predict(item["image"][None]).predictions
        errors.append(((drawn["reconstruction"][0] - item["image"]) ** 2).mean().item())
        pixels = set(map(tuple, (drawn["segmentation"][0, 1] > drawn["segmentation"][0, 0]).nonzero().tolist()))
        truth = set(map(tuple, item["mask"][0].nonzero().tolist()))
        if item["annotated"]:
            dices.append(2 * len(pixels & truth) / (len(pixels) + len(truth)))
    assert found["Dice"] == pytest.approx(sum(dices) / len(dices), abs=1e-5)
    assert found["error"] == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert 0 <= found["AUC"] <= 1
    unseen = example.evaluate(guard, slices("unseen", 8))
    assert math.isnan(unseen["Dice"]) and unseen["error"] > 0


def test_the_command_prints_both_kinds_of_hospitals():
    done = run("--tasks", "cls,seg", "--slices", "32", "--test-slices", "8", "--epochs", "1")
    assert done.exit_code == 0, done.output
    epoch, seen, unseen = done.output.splitlines()
    assert epoch.startswith("epoch 1: criterion ") and ", segmentation " in epoch and "reconstruction" not in epoch
    assert seen.startswith("hospitals 1 to 4: AUC ") and unseen.startswith("hospitals 5 to 11: AUC ")


@pytest.mark.parametrize("tasks", ["seg,rec", "cls,draw"])
def test_bad_tasks_are_one_clear_error(tasks):
    done = run("--tasks", tasks)
    assert done.exit_code == 2 and "--tasks" in done.output
