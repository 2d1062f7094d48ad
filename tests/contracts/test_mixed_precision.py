"""Mixed precision on the CPU: every penalty and head under float16 with a GradScaler and under bfloat16.

`tests/gpu/test_mixed_precision.py` says the same of CUDA.
"""

import pytest
import torch

from tests.contracts.every_term import PENALTIES, TERMS
from tests.contracts.half_steps import HALF, check_half, smooth
from tests.heads.small import annotated_batch

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind")
GRADIENTS = [name for name in PENALTIES if not name.startswith("actdiff")]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", TERMS)
def test_every_term_is_float32_and_has_the_value_and_gradients_of_full_precision(name, dtype):
    check_half(name, smooth(), annotated_batch(8), dtype)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", [name for name in PENALTIES if "cam" in name])
def test_so_it_is_where_a_map_has_no_closed_form(name, dtype):
    check_half(name, smooth("deep"), annotated_batch(8), dtype)


@pytest.mark.parametrize("name", GRADIENTS)
def test_inner_gradients_do_not_underflow_in_float16(name):
    """A weak classifier: below it gradients fall among the smallest float16 values, which keep no digits."""
    check_half(name, smooth("deep", scale=1e-3), annotated_batch(8), torch.float16)


@pytest.mark.parametrize("name", GRADIENTS)
def test_inner_gradients_do_not_overflow_in_float16_where_the_plain_model_is_finite(name):
    """Faint images, a strong first layer and saturated predictions: logits fit into float16, their gradients do not."""
    model = smooth("deep", scale=1e3)
    x, *annotations = annotated_batch(8)
    with torch.no_grad():
        model[0].weight.mul_(3e4)
    check_half(name, model, (x * 1e-4, *annotations), torch.float16)
