"""The pictures of the data sets with known truth."""

import numpy as np
import pytest
from typer.testing import CliRunner

from examples import draw_phantoms as example
from tests.data.idx_files import write_fashion

NAMES = ["hematoma", "lesions", "organs", "sites", "crosses"]


def run(*options):
    app = example.typer.Typer()
    app.command()(example.main)
    return CliRunner().invoke(app, list(map(str, options)))


def test_every_data_set_has_its_picture(tmp_path):
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 255, (20, 28, 28), dtype=np.uint8), (np.arange(20) % 10).astype(np.uint8)
    done = run("--out", tmp_path / "new", "--fashion", write_fashion(tmp_path / "fashion", drawn, drawn))
    assert done.exit_code == 0, done.output
    files = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert set(files) == {f"phantom-{name}.png" for name in [*NAMES, "decoy-fashion"]}
    assert all(content.startswith(b"\x89PNG") for content in files.values()) and len(set(files.values())) == 6


@pytest.mark.parametrize("make", [example.hematomas, example.organs, example.sites, example.crosses])
def test_what_is_not_annotated_has_no_outline(make):
    for panel in make():
        negative = "no hematoma" in panel.caption or "hospital 8" in panel.caption
        negative |= make is example.organs and "class 0" in panel.caption
        assert (panel.mask is None) == negative, panel.caption
        assert panel.mask is None or 0 < panel.mask.float().mean() < 1


def test_lesions_have_a_box_each():
    boxes = [panel.boxes for panel in example.lesions()]
    assert sum(part is not None and len(part) > 0 for part in boxes) >= len(boxes) - 1


def test_without_the_files_there_is_one_clear_error(tmp_path):
    done = run("--out", tmp_path / "out", "--fashion", tmp_path)
    assert done.exit_code == 2 and "train-images-idx3-ubyte.gz" in done.output
