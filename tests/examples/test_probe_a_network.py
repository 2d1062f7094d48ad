"""The walk from a trained network to its decoys, on drawn images that show nothing else."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from attribguard.data import DECOY_CELLS
from examples import probe_a_network as example
from tests.data.idx_files import write_fashion


def run(folder, out, *options):
    app = example.typer.Typer()
    app.command()(example.main)
    return CliRunner().invoke(app, ["--data", str(folder), "--out", str(out), *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run on dim noise with decoys, of two pairs of classes: its output folder and what it printed."""
    folder, rng = tmp_path_factory.mktemp("probed"), np.random.default_rng(0)
    sets = [
        (rng.integers(0, 40, (n, 28, 28), dtype=np.uint8), (np.arange(n) % 10).astype(np.uint8)) for n in (3000, 500)
    ]
    fashion = write_fashion(folder / "fashion", *sets)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PAIRS": [(7, 6), (6, 7)], "SNEAKERS": 8, "SHIRTS": 8}.items():
            patch.setattr(example, name, value)
        patch.setenv("COLUMNS", "120")
        options = ["--images", "3000", "--test-images", "500", "--sources", "8", "--rounds", "1"]
        done = run(fashion, folder / "out", *options)
    assert done.exit_code == 0, done.output
    return folder / "out", done.output, json.loads((folder / "out" / "result.json").read_text("utf-8"))


def test_decoys_are_found_and_nothing_else(finished):
    """A patch of the other class takes its own decoy along, which costs some certainty too."""
    _, printed, result = finished
    assert {DECOY_CELLS[7]} <= set(result["places found"]) <= {DECOY_CELLS[6], DECOY_CELLS[7]}
    assert "2 pairs of classes, 0 of them untested" in printed


def test_the_network_is_measured_before_and_after(finished):
    plain, guarded = finished[2]["networks"]
    assert plain["accuracy"]["own"] > 0.95 and plain["accuracy"]["another class's"] < 0.05
    assert plain["suspects"][0] == DECOY_CELLS[7] and plain["drop"] > 0.5
    assert guarded["drop"] < 0.8 * plain["drop"]  # noise shows nothing else to go by
    assert all("after" not in text and "p = " in text for text in finished[2]["last against plain"].values())
    assert plain["concepts"].keys() == {"q=0.005", "q=0.02", "q=0.05", "q=0.1"}


def test_pictures_are_written(finished):
    for name in ("plain-scan", "plain-concepts", "after-scan-1-scan", "after-scan-1-concepts", "plain-energy"):
        assert (finished[0] / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_missing_files_are_one_clear_error(tmp_path):
    result = run(tmp_path, tmp_path / "out")
    assert result.exit_code == 2 and "train-images-idx3-ubyte.gz" in result.output
