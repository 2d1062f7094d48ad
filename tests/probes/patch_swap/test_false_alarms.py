import pytest
from scipy import stats

from tests.probes.patch_swap.false_alarms import alarms

SCANS = 40


@pytest.mark.parametrize("chosen", [True, False], ids=["of one class", "as they come"])
def test_noise_is_no_suspect_more_often_than_alpha_says(chosen):
    """A short form of `python -m tests.probes.patch_swap.false_alarms`, with fewer scans and targets."""
    most = stats.binom.ppf(0.999, SCANS, 0.05)
    assert alarms(SCANS, sources=12, targets=16, passes=3, chosen=chosen) <= most
