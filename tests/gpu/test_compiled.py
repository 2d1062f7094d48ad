"""torch.compile of a guard on CUDA, with Inductor: one graph and the numbers of eager mode."""

import pytest
import torch

from tests.contracts.every_term import guarded
from tests.contracts.test_compiled import step
from tests.contracts.test_compiled_terms import FIRST_ORDER
from tests.heads.small import SHAPE, annotated_batch, strided

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:.*is blind"),
]


def test_every_first_order_term_compiles_to_one_graph_with_the_same_numbers():
    torch._dynamo.reset()
    guard = guarded(FIRST_ORDER, strided(norm=True).cuda(), example_input=SHAPE)
    x, y, mask, segmentation = (tensor.cuda() for tensor in annotated_batch(8))
    inputs = x, y, {"mask": mask, "segmentation": segmentation}
    loss, *expected = step(guard, guard, inputs)
    with torch._inductor.config.patch(fallback_random=True):
        ours, *others = step(torch.compile(guard, fullgraph=True), guard, inputs)
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=0)
    for a, b in zip(others, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
