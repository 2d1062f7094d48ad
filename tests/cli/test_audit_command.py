import json

import numpy as np
import pytest

from attribguard.auditing import AuditReport
from attribguard.cli import app
from tests.data.picture_files import write_lines, write_png

MODULE = """
from tests.auditing.subjects import Corner
def good():
    return Corner()
def bad():
    return Corner(swap=True)
"""


def call(*arguments):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        app([str(argument) for argument in arguments])
    return exit_.value.code


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of forty pictures with masks, whose bright corner tells the class."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "corner_networks.py").write_text(MODULE)
    lines = ["file,label,group"]
    for number in range(40):
        image, where = np.zeros((8, 8)), slice(0, 4) if number % 2 else slice(4, 8)
        image[where, where] = 255
        write_png(tmp_path / "data" / "images" / f"{number}.png", image)
        write_png(tmp_path / "data" / "masks" / f"{number}.png", image)
        lines.append(f"{number}.png,{('low', 'high')[number % 2]},site {number % 4 // 2}")
    write_lines(tmp_path / "data" / "labels.csv", *lines)
    # By the alphabet "high" comes first, so that the network that is right is the swapped one.
    return tmp_path


def test_an_audit_writes_page_and_report_and_prints_the_verdict(here, capsys):
    code = call("audit", "corner_networks:bad", "data", "--baseline", "corner_networks:good", "--out", "out")
    out = capsys.readouterr().out
    assert code == 0 and "right on 100.0%" in out and "against the baseline: accuracy +1.000" in out
    assert sorted(path.name for path in (here / "out").iterdir()) == ["audit.html", "audit.json"]
    report = AuditReport.from_json("out/audit.json")
    assert report.class_names == ["high", "low"] and len(report.images) == 40
    assert [one.group for one in report.models["model"].groups] == ["site 0", "site 1"]
    assert "audit.html" in out and "corner_networks:bad" in (here / "out" / "audit.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("limits", "code", "words"),
    [
        (["accuracy<0.9"], 0, ""),
        (["accuracy>0.9"], 1, "accuracy is 1.000, above 0.9"),
        (["accuracy<0.9", "inside<2"], 1, "inside is"),
    ],
)
def test_exit_code_1_where_a_figure_crosses_its_limit(here, capsys, limits, code, words):
    options = [part for limit in limits for part in ("--fail-on", limit)]
    assert call("audit", "corner_networks:bad", "data", "--no-scan", "--no-concepts", *options) == code
    assert words in capsys.readouterr().err


def test_a_scan_names_the_patch_without_masks(here, capsys):
    assert call("scan", "corner_networks:bad", "data", "--out", "out") == 0
    report = json.loads((here / "out" / "audit.json").read_text("utf-8"))
    assert report["models"]["model"]["concepts"] is None and report["models"]["model"]["scan"]["rows"] == 8


def test_an_interrupted_audit_is_resumed(here, capsys, monkeypatch):
    arguments = ("audit", "corner_networks:bad", "data", "--batch-size", "8", "--no-scan", "--no-concepts")
    assert call(*arguments, "--out", "whole") == 0
    from attribguard.auditing import run

    rows = run.image_rows

    def interrupted(batch, seen):
        if batch.names[0].endswith("/16.png"):
            raise KeyboardInterrupt
        return rows(batch, seen)

    monkeypatch.setattr(run, "image_rows", interrupted)
    assert call(*arguments, "--out", "out") == 130
    assert "--resume" in capsys.readouterr().err
    assert len((here / "out" / "audit.rows.jsonl").read_text().splitlines()) == 17
    monkeypatch.setattr(run, "image_rows", rows)
    assert call(*arguments, "--out", "out", "--resume") == 0
    assert (here / "out" / "audit.json").read_text() == (here / "whole" / "audit.json").read_text()
    assert not (here / "out" / "audit.rows.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["corner_networks:bad", "nowhere"], "nowhere"),
        (["corner_networks:none", "data"], "raised AttributeError"),
        (["corner_networks:bad", "data", "--checkpoint", "none.pt"], "none.pt"),
        (["corner_networks:bad", "data", "--fail-on", "tea<1"], "--fail-on"),
        (["corner_networks:bad", "data", "--attribution", "tea leaves"], "attribution='tea leaves'"),
        (["corner_networks:bad", "data", "--device", "abacus"], "device='abacus'"),
        (["corner_networks:bad", "data", "--out", "data/labels.csv"], "labels.csv"),
        (["corner_networks:bad", "data", "--split", "test"], "split"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_leaves_nothing(here, capsys, arguments, words):
    before = sorted(here.rglob("*"))
    assert call("audit", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err
    assert captured.err.startswith("attribguard: ") and captured.err.count("\n") == 1
    assert [path for path in sorted(here.rglob("*")) if "__pycache__" not in str(path)] == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: (data / "labels.csv").unlink(), "labels.csv"),
        (lambda data: (data / "images" / "3.png").write_text("hello"), "3.png"),
        (lambda data: write_png(data / "masks" / "3.png", np.zeros((4, 4))), "3.png"),
    ],
)
def test_a_folder_that_cannot_be_read_is_one_line(here, capsys, spoil, words):
    spoil(here / "data")
    assert call("audit", "corner_networks:bad", "data") == 2
    captured = capsys.readouterr()
    assert words in captured.err and captured.err.count("\n") == 1


@pytest.mark.parametrize("command", ["audit", "scan"])
def test_help_says_what_it_takes(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    assert call(command, "--help") == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("MODEL", "DATA", "labels.csv", "--checkpoint", "--fail-on", "hematomas"))
