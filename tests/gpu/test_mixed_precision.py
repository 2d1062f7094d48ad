"""Mixed precision on CUDA, as `tests/contracts/test_mixed_precision.py` has it on the CPU."""

import pytest
import torch

from tests.contracts.every_term import PENALTIES, TERMS
from tests.contracts.half_steps import HALF, check_half, smooth
from tests.heads.small import annotated_batch

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:.*is blind"),
]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", TERMS)
def test_every_term_on_cuda_has_the_value_and_gradients_of_full_precision(name, dtype):
    check_half(name, smooth(), annotated_batch(8), dtype, "cuda")


@pytest.mark.parametrize("name", [name for name in PENALTIES if not name.startswith("actdiff")])
def test_inner_gradients_on_cuda_do_not_underflow_in_float16(name):
    check_half(name, smooth("deep", scale=1e-3), annotated_batch(8), torch.float16, "cuda")
