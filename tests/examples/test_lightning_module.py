"""Lightning trains the guard, logs each part of its loss, and reads its checkpoint back."""

import csv

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("lightning", reason="lightning is not installed (extra: test)")

from attribguard.data import Crosses
from examples import lightning_module as example


def run(out, weight):
    app = example.typer.Typer()
    app.command()(example.main)
    done = CliRunner().invoke(app, f"--out {out} --weight {weight} --images 64 --epochs 2 --seed 1".split())
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and last line of a small run with the penalty, and of one without."""
    runs = {}
    for weight in (10, 0):
        out = tmp_path_factory.mktemp("lightning") / "new" / str(weight)
        runs[weight] = out, run(out, weight).splitlines()[-1]
    return runs


def load(finished, weight):
    return example.GuardedClassifier.load_from_checkpoint(finished[weight][0] / "last.ckpt")


def rows(folder, column):
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row[column]]


@pytest.mark.parametrize("weight", [10, 0])
def test_each_part_of_the_loss_is_logged(finished, weight):
    logged = rows(finished[weight][0], "train/loss")
    assert len(logged) == 2
    for row in logged:
        loss, criterion, actdiff = (float(row[f"train/{name}"]) for name in ("loss", "criterion", "actdiff"))
        assert actdiff > 0 and loss == pytest.approx(criterion + weight * actdiff, rel=1e-4)


def test_the_penalty_moves_the_weights(finished):
    guarded, plain = (load(finished, weight).guard.model.fc.weight for weight in (10, 0))
    assert not torch.allclose(guarded, plain, atol=1e-3)


def test_the_checkpoint_gives_back_the_network_and_its_settings(finished):
    folder, line = finished[10]
    module, test = load(finished, 10), Crosses("test", 128, seed=1)
    assert module.hparams["weight"] == 10 and module.guard.penalties[0].weight == 10
    score = example.auc(module.guard, test)
    assert f"test {score:.3f}" in line
    assert float(rows(folder, "test/auc")[-1]["test/auc"]) == pytest.approx(score, abs=1e-6)  # what it was in training
    x, y, mask = (part[:8] for part in (test.images, test.targets, test.masks))
    assert module.guard(x, y, mask=mask).terms["actdiff"] > 0
