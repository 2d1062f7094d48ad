import pytest

from attribguard.data.files.refusals import Refusals
from attribguard.errors import DataError, RangeError


def error(got="no label"):
    return DataError(got=got, needed="a label", fix="add it")


def test_raise_ends_at_the_first_and_names_table_and_line():
    with pytest.raises(DataError) as raised, Refusals("raise").at("t.csv", 7, "a.png"):
        raise error()
    assert raised.value.got == "no label (line 7 of t.csv)"


def test_skip_goes_on_and_lists_file_and_reason_in_order():
    refusals = Refusals("skip")
    with refusals.at("t.csv", 7, "b.png"):
        raise error()
    refusals.refuse("a.png", error("no end"))
    assert [file for file, _ in refusals.skipped] == ["b.png", "a.png"]
    assert "line 7 of t.csv" in refusals.skipped[0][1] and "no end" in refusals.skipped[1][1]


@pytest.mark.parametrize("kind", [KeyError, KeyboardInterrupt])
def test_only_data_errors_are_left_out(kind):
    with pytest.raises(kind), Refusals("skip").at("t.csv", 7, "a.png"):
        raise kind


def test_an_unknown_manner_is_one_clear_error():
    with pytest.raises(RangeError, match="on_error='ignore'"):
        Refusals("ignore")
