"""A guarded step leaves nothing behind: no memory, no cycle that keeps a graph, nothing of a step that failed."""

import gc
import os
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

import attribguard as ag
from tests.contracts.every_term import TERMS, guarded
from tests.heads.small import SHAPE, annotated_batch, strided

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind")
MEMORY = Path("/proc/self/statm")
# One for each way through a step; what differs only in a norm or a score is left to the others.
WAYS = ["actdiff", "gradmask", "rrr projection", "gradcam", "hirescam projection", "gradient times input",
        "integrated gradients", "expected gradients", "segmentation", "reconstruction masked"]  # fmt: skip


@pytest.mark.skipif(not MEMORY.exists(), reason="reads the memory from /proc")
def test_two_thousand_steps_with_every_penalty_and_head_take_no_more_memory_than_two_hundred():
    def resident():
        gc.collect()
        return int(MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 3, 2, 1), nn.ReLU(), *tail)
    guard = guarded(WAYS, model, example_input=(1, 4, 4))
    assert {type(t) for t in (*guard.penalties, *guard.heads.values())} == {type(make(1.0)) for make in TERMS.values()}
    optimizer = torch.optim.SGD(guard.parameters(), lr=1e-4)
    x, y, mask, segmentation = annotated_batch(2, size=4)
    for number in range(2000):
        optimizer.zero_grad()
        out = guard(x, y, mask=mask, segmentation=segmentation)
        out.loss.backward()
        optimizer.step()
        if number == 199:
            before = resident()
    assert resident() - before < 5e6


class Held:
    """What a node of a graph holds; dead when the graph is."""


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, alive):
        ctx.held = Held()
        alive.add(ctx.held)
        return g.clone()

    @staticmethod
    def backward(ctx, g):
        return g, None


class Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, alive):
        ctx.held, ctx.alive = Held(), alive
        alive.add(ctx.held)
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return Backward.apply(g, ctx.alive), None


class Watched(nn.Module):
    """Passes its input on; `alive` has what is still held of every graph through it, inner backward passes included."""

    def __init__(self):
        super().__init__()
        self.alive = weakref.WeakSet()

    def forward(self, x):
        return Forward.apply(x, self.alive)


def watched(names, **options):
    model = strided(norm=True)
    model.insert(1, Watched())
    return guarded(names, model, example_input=SHAPE, **options), model[1].alive


@pytest.fixture
def _without_collector():
    gc.collect()
    gc.disable()  # no reference cycle may be needed to be broken first
    yield
    gc.enable()


@pytest.mark.usefixtures("_without_collector")
@pytest.mark.parametrize("backward", [False, True], ids=["dropped", "after backward"])
@pytest.mark.parametrize("name", TERMS)
def test_the_graph_dies_with_the_loss_whatever_else_is_kept(name, backward):
    guard, alive = watched([name])
    x, y, mask, segmentation = annotated_batch()
    alive.clear()
    out = guard(x, y, mask=mask, segmentation=segmentation)
    assert alive
    if backward:
        out.loss.backward()
    kept = out.terms, out.weights, out.loss.detach(), out.logits.detach()
    del out
    assert not alive
    assert kept[0][name].isfinite()


class Failure(Exception):  # noqa: N818
    pass


class Fails(nn.Module):
    """Passes on what it is given, and raises where it is told to: at its next call but `after`."""

    def __init__(self):
        super().__init__()
        self.after = None

    def forward(self, *given):
        if self.after is not None:
            self.after -= 1
            if self.after < 0:
                self.after = None
                raise Failure
        return given[0]


class FailingPenalty(ag.Penalty):
    def __init__(self, fails):
        super().__init__(1.0, layers="0", name="failing")
        self.fails = fails

    def forward(self, trace):
        return self.fails(trace.features["0"].square().flatten(1).mean(1))


class FailingDecoder(nn.Module):
    def __init__(self, fails):
        super().__init__()
        self.fails, self.conv = fails, nn.Conv2d(8, 2, 1)

    def forward(self, maps):
        return self.conv(self.fails(maps[-1]))


def failing_guard(where):
    """A guard in which one place fails when told to, and that place."""
    torch.manual_seed(0)
    fails, model = Fails(), strided(norm=True)
    model.insert(1, Watched())
    model.insert(5, nn.Dropout(0.5))
    model[6].eval()  # a flag of its own
    if where == "model":
        model.insert(7, fails)
    if where == "hook":
        model[7].register_forward_hook(lambda module, args, out: fails(out))
    criterion = nn.CrossEntropyLoss()
    decoder = FailingDecoder(fails if where == "decoder" else nn.Identity())
    guard = ag.wrap(
        model,
        penalties=[
            ag.ActDiff(1.0),
            ag.GradMask(1.0),
            ag.GradCAMRRR(1.0),
            ag.AttributionPenalty(1.0, ag.IntegratedGradients(2)),
            FailingPenalty(fails if where == "penalty" else nn.Identity()),
        ],
        heads=[ag.SegmentationHead(2, 1.0, decoder=decoder), ag.ReconstructionHead(1.0, target="masked")],
        criterion=(lambda logits, y: fails(criterion(logits, y))) if where == "criterion" else criterion,
        example_input=SHAPE,
    )
    return guard, fails


# In the model and its hook: in the main pass, in the corrupted pass, in which buffers are lent and the random state is
# turned back, and in a further pass of integrated gradients.
PLACES = [("penalty", 0), ("decoder", 0), ("criterion", 0), ("model", 0), ("model", 1), ("model", 2), ("hook", 0),
          ("hook", 1), ("hook", 2)]  # fmt: skip


@pytest.mark.usefixtures("_without_collector")
@pytest.mark.parametrize(("where", "after"), PLACES)
def test_a_step_that_fails_leaves_nothing_and_the_next_is_as_if_it_had_not_been(where, after):
    def step(guard):
        torch.manual_seed(5)
        guard.zero_grad()
        out = guard(x, y, mask=mask, segmentation=segmentation)
        out.loss.backward()
        return [out.loss.detach(), *out.terms.values(), *(p.grad.clone() for p in guard.parameters())]

    guard, fails = failing_guard(where)
    x, y, mask, segmentation = annotated_batch()
    expected = step(failing_guard(where)[0])
    flags = [module.training for module in guard.modules()]
    buffers = dict(guard.named_buffers())
    fails.after = after
    try:
        guard(x, y, mask=mask, segmentation=segmentation)
        raise AssertionError("nothing failed")
    except Failure:
        pass
    assert not guard.model[1].alive
    assert guard._network.capture.recording is None
    assert [module.training for module in guard.modules()] == flags
    assert all(buffer is buffers[name] for name, buffer in guard.named_buffers())
    assert guard.model[2].num_batches_tracked <= 1
    assert all(p.grad is None for p in guard.parameters())
    for ours, theirs in zip(step(guard), expected, strict=True):
        assert torch.equal(ours, theirs)
