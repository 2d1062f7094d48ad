import math
from dataclasses import replace

import pytest

from attribguard.reproduce import reproduce
from attribguard.reproduce.differences import difference
from attribguard.reproduce.records import read
from attribguard.reproduce.table import section
from tests.reproduce.small import small


def test_the_interval_is_students_of_the_paired_differences():
    """Three pairs, so two degrees of freedom, whose 97.5 % quantile is 4.3027."""
    ours, theirs = [0.9, 0.7, 0.8], [0.6, 0.6, 0.6]
    differences = [0.3, 0.1, 0.2]
    sd = math.sqrt(sum((d - 0.2) ** 2 for d in differences) / 2)
    half = 4.3027 * sd / math.sqrt(3)
    assert difference(ours, theirs) == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-4)


def test_what_both_share_cancels():
    assert difference([1.0, 5.0, 9.0], [0.5, 4.5, 8.5]) == pytest.approx((0.5, 0.5, 0.5))


def test_a_single_pair_has_no_interval():
    middle, low, high = difference([1.0], [0.25])
    assert middle == 0.75 and math.isnan(low) and math.isnan(high)


def test_comparisons_stand_below_the_table_and_only_of_rows_that_were_run(tmp_path):
    compared = replace(small(), comparisons=(("tuned", "plain"), ("heir", "tuned")), differences=("test",))
    records = read(reproduce(compared, tmp_path)[0])
    text = section(compared, "default", 2, records, ["p.png"])
    # Weights 2 and 0: twenty more with every seed, which no interval blurs.
    assert "| tuned | plain | **+20.000 [+20.000, +20.000]** |" in text
    assert "| heir | tuned | +0.000 [+0.000, +0.000] |" in text
    some = [record for record in records if record["row"] != "plain"]
    assert "| tuned | plain |" not in section(compared, "default", 2, some, ["p.png"])
