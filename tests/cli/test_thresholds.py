import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribguard.cli.thresholds import findings, read_thresholds
from attribguard.errors import RangeError

KNOWN = ("inside", "drop")


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_figure_is_a_finding_on_the_named_side_of_its_limit(value, limit):
    below, above = read_thresholds([f"inside<{limit!r}", f" inside > {limit!r} "], KNOWN)
    assert bool(findings({"inside": value}, [below])) == (value < limit)
    assert bool(findings({"inside": value}, [above])) == (value > limit)


def test_what_could_not_be_measured_is_a_finding():
    assert findings({}, read_thresholds(["drop>0.2"], KNOWN)) == ["drop could not be measured"]


@pytest.mark.parametrize(
    "text", ["inside", "inside=0.5", "inside<", "inside<much", "outside<0.5", "inside<nan", "<1", ""]
)
def test_other_forms_are_refused(text):
    with pytest.raises(RangeError, match="FIGURE<NUMBER"):
        read_thresholds([text], KNOWN)
