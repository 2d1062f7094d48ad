import math

import pytest

from attribguard.reproduce import reproduce
from attribguard.reproduce.records import read
from attribguard.reproduce.table import section, spread
from tests.reproduce.small import PLAIN, TUNED, small


@pytest.fixture
def records(tmp_path):
    return read(reproduce(small(), tmp_path)[0])


def test_spread_is_the_sample_standard_deviation():
    values = [1.0, 2.0, 6.0]
    sd = math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2)
    assert spread(values) == f"3.000 ± {sd:.3f}"


def test_figures_that_are_no_numbers_are_counted_and_not_averaged():
    assert spread([1.0, None, 3.0]) == "2.000 ± 1.414 (1 nan)"
    assert spread([None]) == "(1 nan)"


def test_only_a_mean_further_than_the_tolerance_from_the_papers_is_marked(records):
    text = section(small(), "default", 2, records, ["p.png"])
    assert "| plain | 0.500" in text  # 0.5 from the paper's 1.0, and 0.6 is tolerated
    assert "| tuned | **≠** 20.500" in text


def test_rows_that_were_not_run_stand_in_the_table_and_are_named(records):
    some = [record for record in records if record["row"] != "heir"]
    text = section(small(), "default", 2, some, ["p.png"])
    assert "| heir |  |  |  |  | 0 |" in text and "Not run yet: heir." in text
    assert "Not run yet" not in section(small(), "default", 2, records, ["p.png"])


def test_rows_of_a_changed_setting_no_longer_count(records):
    text = section(small(rows=(TUNED, PLAIN.__class__("plain", {"weight": 9.0}))), "default", 2, records, ["p.png"])
    assert "Not run yet: plain." in text


def test_the_text_says_how_many_trainings_on_what_machine(records):
    text = section(small(), "default", 2, records, ["p.png"])
    assert "6 trainings and 4 of the search" in text
    machine = records[0]["machine"]
    assert (
        f"{machine['processor']}, {machine['cores']} cores" in text
        and f"torch {records[0]['versions']['torch']}" in text
    )


def test_the_command_that_makes_the_table_is_given():
    assert "`attribguard reproduce small --quick`" in section(small(), "quick", 1, [], ["p.png"])
    assert "`attribguard reproduce small --data DIR`" in section(small(needs_data="x"), "default", 1, [], ["p.png"])
