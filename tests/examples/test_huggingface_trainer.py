"""Trainer trains the guard with the masks of some images, logs each part of its loss, and evaluates the network."""

import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("transformers", reason="transformers is not installed (extra: test)")
pytest.importorskip("accelerate", reason="accelerate is not installed (extra: test)")

from attribguard.data import Crosses
from examples import huggingface_trainer as example

OPTIONS = {"num_train_epochs": 2, "logging_steps": 1, "batch": 8, "disable_tqdm": True}


def trained(folder, annotated, weight=10.0, **options):
    example.set_seed(0)
    guard = example.guarded(weight)
    data, test = (example.items_of(Crosses(split, 24), n) for split, n in (("train", annotated), ("test", 0)))
    trainer = example.trainer_of(guard, data, test, folder, **(OPTIONS | options))
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Half of the images have a mask."""
    return trained(tmp_path_factory.mktemp("half"), annotated=12)


def logged(trainer):
    return [row for row in trainer.state.log_history if "loss" in row]


def test_each_part_of_the_loss_is_logged(half):
    assert len(logged(half)) == 6
    for row in logged(half):
        assert row["loss"] == pytest.approx(row["criterion"] + 10 * row["actdiff"], abs=1e-3)
    assert max(row["actdiff"] for row in logged(half)) > 0


def test_masks_count_where_there_are_some(half, tmp_path):
    none = trained(tmp_path, annotated=0)
    assert all(row["actdiff"] == 0 for row in logged(none))
    ours, theirs = (each.model.guard.model.fc.weight for each in (half, none))
    assert not torch.allclose(ours, theirs, atol=1e-3)


def test_accumulated_batches_are_divided_once(half, tmp_path):
    """The first step's loss is the mean over its batches, as for a batch of them all."""
    rows = logged(trained(tmp_path, annotated=12, gradient_accumulation_steps=3))
    assert len(rows) == 2
    assert 0.5 < rows[0]["loss"] / logged(half)[0]["loss"] < 2


def test_trainer_evaluates_the_network_itself(half):
    network, test = half.model.guard.model.eval(), Crosses("test", 24)
    with torch.no_grad():
        margin = network(test.images).diff(dim=1)[:, 0]
    pairs = margin[test.targets == 1][:, None] - margin[test.targets == 0]
    scores = half.evaluate()
    assert scores["eval_auc"] == pytest.approx((pairs > 0).double().mean().item() + (pairs == 0).double().mean() / 2)
    assert torch.equal(half.model.eval()(test.images)["logits"], network(test.images))


def test_a_batch_says_whose_mask_counts():
    items = [example.items_of(Crosses("train", 4), 2)[i] for i in (3, 1)]
    batch = example.collate(items)
    assert batch["annotated"].tolist() == [False, True]
    assert torch.equal(batch["mask"][1], items[1]["mask"])
    assert batch["pixel_values"].shape == batch["mask"].shape == (2, 1, 28, 28) and batch["labels"].shape == (2,)


def test_the_command_prints_the_auc(tmp_path):
    app = example.typer.Typer()
    app.command()(example.main)
    done = CliRunner().invoke(app, f"--out {tmp_path} --images 32 --annotated 8 --epochs 1".split())
    assert done.exit_code == 0, done.output
    assert "test AUC 0." in done.output or "test AUC 1." in done.output
