"""The gallery at a small size: it trains what is listed, keeps it, and draws and tells what it measured."""

import pytest
import torch
from matplotlib import image as png
from torch import nn
from typer.testing import CliRunner

from attribguard import Guard
from examples import heads_on_any_network as example
from examples.segmentation_head import Settings, small_network

NAMES = ["wide", "high"]


def run(out, *options):
    app = example.typer.Typer()
    app.command()(example.main)
    return CliRunner().invoke(app, ["--out", str(out), *options])


@pytest.fixture
def small(monkeypatch):
    """Two small entries in place of the list: one of them twice as long as high."""
    settings = Settings(epochs=2, batch=8, rate=3e-3)
    entries = [example.Entry(small_network, size, settings) for size in ((32, 64), (64, 32))]
    monkeypatch.setattr(example, "NETWORKS", dict(zip(NAMES, entries, strict=True)))
    monkeypatch.setattr(example, "IMAGES", 16)
    monkeypatch.setattr(example, "TEST_IMAGES", 3)


def test_what_is_finished_is_kept(small, tmp_path, monkeypatch):
    first = run(tmp_path, "--only", "wide")
    assert first.exit_code == 0, first.output
    built, trained = [], example.trained
    monkeypatch.setattr(example, "trained", lambda entry, *rest: built.append(entry.size) or trained(entry, *rest))
    second = run(tmp_path)
    assert second.exit_code == 0, second.output
    assert built == [(64, 32)]
    rows = [line for line in second.output.splitlines() if line.startswith(("| wide", "| high"))]
    assert len(rows) == 2 and rows[0] in first.output
    assert " 4 | " in rows[0]  # steps


def test_other_settings_train_anew(small, tmp_path):
    one, other = (run(tmp_path, "--only", "wide", "--seed", seed).output for seed in ("0", "1"))
    assert one.splitlines()[-1] != other.splitlines()[-1]


def test_the_figures_are_those_of_the_test_images(small):
    entry = example.NETWORKS["wide"]
    result = example.trained(entry, 5, lambda: None)
    image, mask, probability, drawn = result["drawn"]
    test = example.draw_lesions(3, (32, 64), 11)
    assert torch.equal(image, test.images[1]) and torch.equal(mask, test.segmentation[1])
    assert probability.shape == (32, 64) and drawn.shape == (3, 32, 64)
    assert 0 <= result["iou"] <= 1 and 0 < result["mse"] < 1 and result["seconds"] > 0


def test_a_picture_holds_so_many_networks(small, tmp_path, monkeypatch):
    monkeypatch.setattr(example, "IN_A_PICTURE", 1)
    assert run(tmp_path).exit_code == 0
    wide, high = (png.imread(tmp_path / f"heads-{i}.png") for i in (1, 2))
    assert wide.shape[1] == high.shape[1] == 900
    assert high.shape[0] - wide.shape[0] == 420 - 105


def test_a_damaged_result_and_an_unknown_name_are_clear_errors(small, tmp_path):
    (tmp_path / "wide.pt").write_bytes(b"no result")
    damaged = run(tmp_path)
    assert damaged.exit_code == 2 and "wide.pt" in damaged.output
    unknown = run(tmp_path, "--only", "xyz")
    assert unknown.exit_code == 2 and "--only" in unknown.output


@pytest.mark.parametrize("name", [name for name in example.NETWORKS if "actdiff" in name or "hand" in name])
def test_a_listed_network_carries_both_heads(name):
    """The others stand in tests/heads."""
    entry = example.NETWORKS[name]
    built = entry.build()
    assert isinstance(built, nn.Module)
    guard = built if isinstance(built, Guard) else example.guard_of(built, entry.size)
    guard.eval()
    drawn = guard.predict(torch.rand(1, 3, *entry.size)).predictions
    assert drawn["segmentation"].shape == (1, 2, *entry.size)
    assert drawn["reconstruction"].shape == (1, 3, *entry.size)
