"""The real thing: the command as a user gives it, at full size, held against the figures that it must reach.

Five seeds of each source were run by hand (docs/guarding.md); here one, because a run takes some ten seconds.
"""

import json

import pytest
from PIL import Image

from attribguard.cli import app


def check_figures(result):
    baseline, guarded = result["baseline"], result["guarded"]
    assert baseline["train_auc"] >= 0.99 and baseline["test_auc"] <= 0.05
    assert guarded["train_auc"] >= 0.95 and guarded["test_auc"] >= 0.90
    assert guarded["inside"] > baseline["inside"] + 0.3


def run(tmp_path, *options):
    with pytest.raises(SystemExit) as exit_:
        app(["demo", "--out", str(tmp_path), *options])
    assert exit_.value.code == 0
    return json.loads((tmp_path / "result.json").read_text("utf-8"))


def test_actdiff_rescues_the_network_on_generated_crosses(tmp_path, capsys):
    result = run(tmp_path)
    check_figures(result)
    printed = capsys.readouterr().out
    for name in ("train", "valid", "test"):
        assert f"{result['guarded'][f'{name}_auc']:.3f}" in printed
    assert f"{result['guarded']['inside']:.0%}" in printed and f"{result['baseline']['inside']:.0%}" in printed
    files = [str(tmp_path / name) for name in ("result.json", "saliency.png", "audit.html")]
    assert printed.splitlines()[-3:] == files
    with Image.open(tmp_path / "saliency.png") as image:
        assert image.width == 1200


def test_actdiff_rescues_the_network_on_the_authors_files(tmp_path, actdiff_synth):
    result = run(tmp_path, "--data", str(actdiff_synth), "--seed", "0")
    check_figures(result)
    assert result["data"] == str(actdiff_synth)
    assert result["settings"]["train_images"] == 500
