import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribguard.plain_data import check_regular, parse_json, read_regular, typed

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@dataclass(frozen=True)
class Point:
    x: float
    name: str


@dataclass(frozen=True)
class Line:
    points: list[Point]
    width: int | None
    ends: tuple[int, int]
    marks: tuple[float, ...]
    by_name: Mapping[str, Point]
    style: Literal["dashed", "plain"] | float


LINE = {
    "points": [{"x": 1, "name": "é"}], "width": None, "ends": [1, 2], "marks": [0.5], "by_name": {}, "style": "plain",
}  # fmt: skip


def test_every_part_gets_the_type_that_was_written():
    line = typed(Line, {**LINE, "by_name": {"a": {"x": -2.5, "name": ""}}})
    assert line == Line([Point(1.0, "é")], None, (1, 2), (0.5,), {"a": Point(-2.5, "")}, "plain")
    assert type(line.points[0].x) is float


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 1.0}, "width: 1.0 is no"), ({"width": True}, "width: True is no"), ({"width": "1"}, "width: '1'"),
        ({"width": 2**63}, "width: a int is no"), ({"ends": [1]}, "ends: a list"), ({"ends": [1, 2, 3]}, "ends: a"),
        ({"ends": {}}, "ends: a dict"), ({"marks": [0.5, math.inf]}, "marks.1: inf"), ({"marks": [None]}, "marks.0"),
        ({"marks": [10**400]}, "marks.0: a int"), ({"points": [{"x": 1}]}, "points.0: a dict is no Point"),
        ({"points": [{"x": 1, "name": "", "more": 1}]}, "points.0: a dict"), ({"points": [[1, ""]]}, "points.0: a"),
        ({"points": [{"x": 1, "name": "\ud800"}]}, "points.0.name"), ({"by_name": []}, "by_name: a list"),
        ({"by_name": {"\ud800": {"x": 1, "name": ""}}}, "by_name"), ({"style": "dotted"}, "style: 'dotted'"),
        ({"style": True}, "style: True"), ({"more": 1}, "the whole"),
    ],
)  # fmt: skip
def test_a_part_of_another_type_is_refused_by_its_name(changes, words):
    with pytest.raises(ValueError, match=words):
        typed(Line, {**LINE, **changes})


@pytest.mark.parametrize("missing", LINE)
def test_a_part_that_is_missing_is_refused(missing):
    with pytest.raises(ValueError, match="the whole: a dict is no Line"):
        typed(Line, {name: value for name, value in LINE.items() if name != missing})


def test_parts_that_json_holds_otherwise_are_made_as_told():
    assert typed(Point, {"x": [1, 2], "name": "a"}, x=sum) == Point(3, "a")


@given(ANY_JSON)
def test_any_value_is_itself_or_refused(value):
    try:
        assert typed(Any, value) == value
    except ValueError:
        assert any(number >= 2**63 or number < -(2**63) for number in numbers(value))


@given(ANY_JSON)
def test_a_value_of_any_type_is_a_line_or_refused_with_one_kind_of_error(value):
    with pytest.raises(ValueError, match="is no"):
        typed(Line, {**LINE, "by_name": {"a": value}})


def numbers(value):
    if isinstance(value, int):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from numbers(inner)


@pytest.mark.parametrize(
    "text", [b"\xff", "", "[" * 100_000, '{"a":' * 100_000, "NaN", "[-Infinity]", "1" * 5000, "[1,]", b"\xff\xfe[\0]\0"]
)
def test_what_is_no_json_is_one_kind_of_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_lists_too_deep_to_follow_are_one_kind_of_error_too():
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="too deep"):
        typed(Any, deep)


def test_only_files_are_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    assert read_regular(tmp_path / "a") == b"x"
    check_regular(tmp_path / "none")  # opening it says so
    with pytest.raises(OSError, match="is no file"):
        read_regular(tmp_path)
