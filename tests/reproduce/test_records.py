import json

import pytest

from attribguard.errors import DataError
from attribguard.reproduce import Outcome
from attribguard.reproduce.jobs import Job
from attribguard.reproduce.records import append, make_record, read

JOB = Job("a row, λ 1", True, 0, {"weight": 1.0})


def record(**metrics):
    return make_record(JOB, Outcome(metrics, {"valid": [0.5, float("inf")]}), 1.26, {"processor": "x"}, {"torch": "2"})


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "rows.jsonl"
    append(path, record(test=0.25))
    append(path, record(test=0.75))
    assert [r["metrics"]["test"] for r in read(path)] == [0.25, 0.75]
    assert read(path)[0]["row"] == JOB.row and read(path)[0]["seconds"] == 1.3


def test_figures_that_are_not_finite_become_null_and_the_file_stays_json(tmp_path):
    append(tmp_path / "rows.jsonl", record(test=float("nan")))
    line = (tmp_path / "rows.jsonl").read_text("utf-8")
    assert json.loads(line, parse_constant=pytest.fail)["metrics"] == {"test": None}
    assert json.loads(line)["curves"] == {"valid": [0.5, None]}


@pytest.mark.parametrize("line", ["no json", "3", '{"row": "a"}'])
def test_a_line_that_is_no_training_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    append(path, record(test=0.25))
    path.write_text(path.read_text("utf-8") + line + "\n", "utf-8")
    with pytest.raises(DataError, match="line 2 of"):
        read(path)


def odd(**changes):
    return json.dumps({**record(test=1.0), **changes}).encode()


@pytest.mark.parametrize(
    "line",
    [b"\xff", b"[" * 100_000, b"", b'{"row": NaN}', odd(metrics=[1]), odd(seed="0"), odd(maps={"m": 5})],
)
def test_a_line_of_anything_else_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    append(path, record(test=0.25))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match="line 2 of"):
        read(path)


def test_a_line_may_hold_what_other_systems_take_for_the_end_of_one(tmp_path):
    name = "a\u2028b\u0085c"
    append(tmp_path / "rows.jsonl", {**record(test=0.25), "row": name})
    assert [r["row"] for r in read(tmp_path / "rows.jsonl")] == [name]
