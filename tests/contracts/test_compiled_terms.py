"""torch.compile of a guard: every first-order term in one graph, Inductor's numbers, and what is refused, by name."""

import pytest
import torch
import torch._dynamo.testing
import torch._inductor.config
from torch import nn

import attribguard as ag
from attribguard.errors import ModelError
from tests.contracts.every_term import HEADS, PENALTIES, guarded
from tests.contracts.test_compiled import step
from tests.heads.small import PARTLY, SHAPE, annotated_batch, strided
from tests.networks import batch, plain_cnn

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind")
FIRST_ORDER = [name for name in (*PENALTIES, *HEADS) if "actdiff" in name or "cam" in name or name in HEADS]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def inputs_of_a_step():
    x, y, mask, segmentation = annotated_batch()
    annotated = {"mask": PARTLY, "segmentation": PARTLY.roll(1)}
    return x, y, {"mask": mask, "segmentation": segmentation, "annotated": annotated}


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_every_first_order_term_is_in_the_one_graph_that_all_steps_share():
    guard = guarded(FIRST_ORDER, strided(norm=True, inplace=True), example_input=SHAPE)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(guard, backend=counter, fullgraph=True)
    for _ in range(3):
        inputs = inputs_of_a_step()
        assert_same(step(compiled, guard, inputs), step(guard, guard, inputs))
    assert counter.frame_count == 1
    assert len(guard.penalties) + len(guard.heads) == len(FIRST_ORDER) == 10


@pytest.mark.skipif(torch.__version__ < (2, 7), reason="Inductor of torch 2.6 draws otherwise, even so")
def test_inductor_gives_the_same_loss_and_gradients():
    """With `fallback_random`, in which it draws as eager mode does: shuffled images and dropout."""
    guard = ag.wrap(plain_cnn(width=2, dropout=0.3), penalties=[ag.ActDiff(5.0)], example_input=SHAPE)
    x, y, mask = batch()
    inputs = x, y, {"mask": mask}
    (loss, *expected), compiled = step(guard, guard, inputs), torch.compile(guard, fullgraph=True)
    with torch._inductor.config.patch(fallback_random=True):
        ours, *others = step(compiled, guard, inputs)
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=0)
    for a, b in zip(others, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


SECOND_ORDER = [name for name in PENALTIES if name not in FIRST_ORDER]


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_the_first_call_with_a_second_derivative_says_what_to_do_and_changes_nothing(name):
    guard = guarded([name], plain_cnn(norm=True), example_input=SHAPE)
    before = {key: value.clone() for key, value in guard.state_dict().items()}
    x, y, mask = batch()
    with pytest.raises(ModelError, match=r"penalty on input gradients.*leave the guard uncompiled"):
        torch.compile(guard, backend="aot_eager")(x, y, mask=mask)
    assert all(torch.equal(value, before[key]) for key, value in guard.state_dict().items())
    assert guard(x, y, mask=mask).loss.isfinite()


def deep():
    return nn.Sequential(*plain_cnn(), nn.Tanh(), nn.Linear(2, 2))


REFUSED = {
    "a map behind which the classifier is not linear": (
        lambda: ag.wrap(deep(), penalties=[ag.GradCAMRRR(1.0)], example_input=SHAPE),
        "gradient with respect to a layer.*leave the guard uncompiled",
    ),
    "layers that were never seen": (
        lambda: ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0)]),
        "pass example_input to wrap",
    ),
    "GradNorm": (
        lambda: ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0)], weighting=ag.GradNorm(), example_input=SHAPE),
        r"use weighting=Uncertainty\(\)",
    ),
}


@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("what", REFUSED)
def test_what_a_graph_cannot_hold_is_refused_by_name(what, fullgraph):
    """With `fullgraph=True` the compiler reports in its own error, with the text in it."""
    build, words = REFUSED[what]
    x, y, mask = batch()
    with pytest.raises(Exception if fullgraph else ModelError, match=words):
        torch.compile(build(), backend="aot_eager", fullgraph=fullgraph)(x, y, mask=mask)


def test_a_model_whose_forward_is_compiled_is_refused_and_one_kept_out_of_graphs_is_not():
    model = plain_cnn()
    model[0].forward = torch.compile(model[0].forward)
    with pytest.raises(ModelError, match=r"compiled model.*compile the guard: torch.compile\(wrap\(model"):
        ag.wrap(model, penalties=[ag.ActDiff(1.0)])
    model = plain_cnn()
    model[0].forward = torch.compiler.disable(model[0].forward)
    x, y, mask = batch()
    assert ag.wrap(model, penalties=[ag.ActDiff(1.0)])(x, y, mask=mask).terms["actdiff"] > 0
