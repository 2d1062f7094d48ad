import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.data.medical.window import ct_window
from attribguard.errors import RangeError

hu = st.integers(-3000, 4000)
numbers = st.floats(-1000, 1000)
widths = st.floats(1, 4000)


def by_the_standard(x, center, width):
    """PS3.3 C.11.2.1.3.2, LINEAR_EXACT, with an output from 0 to 1: one value at a time."""
    if x <= center - width / 2:
        return 0.0
    if x > center + width / 2:
        return 1.0
    return (x - center) / width + 0.5


@given(st.lists(hu, min_size=1, max_size=20), numbers, widths)
def test_window_is_the_linear_exact_function_of_the_standard(values, center, width):
    shown = ct_window(torch.tensor(values, dtype=torch.float64), center, width)
    expected = [by_the_standard(x, center, width) for x in values]
    torch.testing.assert_close(shown, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_brain_window_shows_0_to_80_and_takes_whole_numbers():
    shown = ct_window(torch.tensor([[-1, 0, 20], [40, 80, 81]], dtype=torch.int16), 40, 80)
    torch.testing.assert_close(shown, torch.tensor([[0, 0, 0.25], [0.5, 1, 1]]))


@pytest.mark.parametrize(("center", "width"), [(40, 0), (40, -1), (math.nan, 80), (40, math.nan), (40, math.inf)])
def test_window_without_extent_is_refused(center, width):
    with pytest.raises(RangeError, match="finite width above 0"):
        ct_window(torch.zeros(2), center, width)
