import json

import pytest

from attribguard.auditing import AuditReport, audit
from attribguard.auditing.verdict import verdict
from attribguard.errors import DataError
from tests.auditing.subjects import Corner, batches


@pytest.fixture(scope="module")
def report():
    return audit(Corner(), list(batches(40)), baseline=Corner(swap=True), class_names=["low", "high"])


def test_what_is_written_comes_back(report, tmp_path):
    path = report.to_json(tmp_path / "new" / "report.json")
    assert AuditReport.from_json(path) == report
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no JSON"),
        ("[1, 2]", "no report"),
        ("[" * 100_000, "no JSON"),
        ('{"format": 2}', "a report of format 2"),
        ('{"format": 1, "models": {}}', "missing or odd"),
        ('{"format": 1, "models": 5}', "missing or odd"),
    ],
)
def test_a_file_that_is_no_report_of_this_version_is_refused(content, words, tmp_path):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=words):
        AuditReport.from_json(tmp_path / "report.json")
    with pytest.raises(DataError, match="No such file"):
        AuditReport.from_json(tmp_path / "other.json")


def test_a_report_with_parts_missing_is_refused(report, tmp_path):
    plain = json.loads(report.to_json(tmp_path / "report.json").read_text())
    for key in ("images", "models", "left_out"):
        (tmp_path / "broken.json").write_text(json.dumps({name: value for name, value in plain.items() if name != key}))
        with pytest.raises(DataError, match="missing or odd"):
            AuditReport.from_json(tmp_path / "broken.json")


def test_a_place_that_cannot_be_written_to_is_one_error_and_leaves_nothing(report, tmp_path):
    (tmp_path / "file").write_text("")
    for write in (report.to_json, report.to_html):
        with pytest.raises(DataError, match="cannot be written"):
            write(tmp_path / "file" / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_values_are_the_models_own(report):
    values = report.values()
    assert values["accuracy"] == values["auroc"] == 1.0
    assert values["inside"] == report.models["model"].figures["inside"].value
    assert "worst_group" not in values


def test_the_summary_has_a_line_for_every_figure(report):
    table = report.summary()
    assert table.row_count == 7
    first = [next(iter(column.cells)) for column in table.columns[:3]]
    assert first[0] == "accuracy" and first[1].startswith("1.000") and first[2].startswith("0.000")


def test_the_verdict_says_the_numbers(report):
    text = verdict(report)
    assert "right on 100.0%" in text and "of 40 images" in text and "25.0% of the area" in text
    assert "against the baseline: accuracy +1.000" in text


def test_figures_are_pictures(report):
    pictures = report.figures()
    assert set(pictures) == {"figures", "scan", "concepts"}
    axis = pictures["figures"].axes[0]
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[0] == "accuracy" and len(labels) == 7
    assert axis.lines[0].get_xdata()[0] == 1.0


GROUP = {"group": "a", "accuracy": {"value": 1, "low": 0, "high": 1, "n": 9}}


def changed(plain, *path):
    """The report with what stands at a place exchanged for the last of `path`."""
    plain = json.loads(json.dumps(plain))
    inner = plain
    for key in path[:-2]:
        inner = inner[key]
    inner[path[-2]] = path[-1]
    return plain


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("models", "model", "figures", "accuracy", "value", "1"), "value: '1' is no"),
        (("models", "model", "figures", {}), "accuracy"),
        (("models", {}), "networks"),
        (("models", "model", "groups", [GROUP]), "groups"),
        (("models", "model", "scan", "rows", 10**9), "drops"),
        (("models", "model", "scan", "pairs", 0, "p_values", [0.5]), "p values"),
        (("models", "model", "scan", "pairs", 0, "drop", 0, 2.0), "above 1"),
        (("models", "model", "scan", "pairs", 0, "source", -1), "patches"),
        (("models", "model", "concepts", "best", []), "concepts"),
        (("images", 0, "seen", "model", "logits", []), "logits"),
        (("images", 0, "seen", "model", "logits", 0, 1e999), "no JSON"),
        (("images", 0, "seen", "model", "where", {}), "looks"),
        (("images", 0, "seen", {}), "as seen by"),
        (("images", 0, "target", -1), "logits, a class"),
        (("images", 0, "name", "\ud800"), "name"),
        (("settings", "attribution", "none"), "attribution"),
        (("settings", "versions", 5), "versions"),
        (("settings", "seed", float("nan")), "no JSON"),
    ],
)  # fmt: skip
def test_a_report_whose_parts_do_not_fit_is_refused_before_it_is_shown(report, path, words, tmp_path):
    plain = json.loads(report.to_json(tmp_path / "report.json").read_text())
    (tmp_path / "odd.json").write_text(json.dumps(changed(plain, *path)))
    with pytest.raises(DataError, match=words):
        AuditReport.from_json(tmp_path / "odd.json")
