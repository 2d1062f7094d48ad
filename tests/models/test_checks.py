import pytest

from attribguard.errors import RangeError
from attribguard.models.checks import check_list, check_norm, check_whole


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True])
def test_what_is_no_whole_number_of_one_or_more_is_refused_by_name(value):
    with pytest.raises(RangeError, match=r"width=.*1 or more.*another width"):
        check_whole(good=1, width=value)


def test_the_least_number_is_allowed_and_one_less_is_not():
    check_whole(8, img_size=8)
    with pytest.raises(RangeError, match="img_size=7; needed a whole number, 8 or more"):
        check_whole(8, img_size=7)


@pytest.mark.parametrize("value", [(), 3, None, {1: 2}])
def test_what_is_no_list_is_refused_by_name(value):
    with pytest.raises(RangeError, match=r"widths=.*a list of whole numbers, 1 or more"):
        check_list(good=[1], widths=value)


def test_a_list_is_refused_by_the_number_that_does_not_fit():
    check_list(widths=(1, 2))
    with pytest.raises(RangeError, match=r"widths\[1\]=0"):
        check_list(widths=(1, 0))


def test_only_the_two_normalisations_are_known():
    check_norm("none")
    check_norm("batch")
    for norm in ("layer", None, ["batch"]):
        with pytest.raises(RangeError, match="'none' or 'batch'"):
            check_norm(norm)
