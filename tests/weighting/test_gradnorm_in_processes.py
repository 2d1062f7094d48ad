"""GradNorm in two processes is GradNorm in one on the joined batch, and both agree on every weight."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from attribguard.weighting import GradNorm
from tests.two_processes import run_two

NAMES, WEIGHTS = ["criterion", "far", "annotated"], {"criterion": 1.0, "far": 5.0, "annotated": 2.0}


class Guarded(nn.Module):
    """Three terms of one layer; the last counts only annotated rows, of which the second process has none."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.heads, self.weighting = nn.Linear(4, 3), nn.Linear(3, 3), GradNorm()
        self.weighting.setup(NAMES, self.layer.weight)

    def forward(self, x, annotated):
        first, second, third = self.heads(self.layer(x).tanh()).square().unbind(1)
        terms = [first.mean(), second.mean(), (third * annotated).mean()]
        return self.weighting(dict(zip(NAMES, terms, strict=True)), WEIGHTS, [self.layer.weight])


def train(call, guarded, rows):
    """The weights in force in each step, the first values, and all parameters at the end."""
    torch.manual_seed(1)
    x, annotated = torch.randn(8, 4), torch.tensor([1.0, 1, 0, 1, 0, 0, 0, 0])
    optimizer = torch.optim.SGD(guarded.parameters(), lr=0.05)
    seen = []
    for _ in range(5):
        loss, in_force = call(x[rows], annotated[rows])
        seen.append(torch.stack(list(in_force.values())))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [*seen, *guarded.weighting.buffers(), *(p.detach() for p in guarded.parameters())]


def train_one_of_two(rank):
    guarded = Guarded()
    return train(DistributedDataParallel(guarded), guarded, slice(4 * rank, 4 * rank + 4))


def test_two_processes_agree_and_equal_one(tmp_path):
    guarded = Guarded()
    expected = train(guarded, guarded, slice(None))
    assert (expected[4] / torch.tensor(list(WEIGHTS.values())) - 1).abs().min() > 0.01  # the factors did move
    first, second = run_two(train_one_of_two, folder=tmp_path)
    assert all(map(torch.equal, first, second))
    torch.testing.assert_close(first, expected, rtol=1e-5, atol=1e-6)


def passes_where_one_overflows(rank):
    """How often autograd went back to the layer, whose gradient overflows in the second process where it is scaled."""
    guarded, passes = Guarded(), []
    values = guarded.layer(torch.ones(1, 4))
    values.register_hook(lambda gradient: passes.append(gradient.isfinite().all().item()))
    steep = values.sum() * (1e36 if rank else 1.0)
    guarded.weighting({"criterion": steep, "far": steep, "annotated": steep}, WEIGHTS, [guarded.layer.weight])
    return passes


def test_where_one_processs_gradient_overflows_all_go_back_equally_often(tmp_path):
    """A backward pass through a SyncBatchNorm waits for those of the others."""
    first, second = run_two(passes_where_one_overflows, folder=tmp_path)
    assert not all(second)
    assert all(first)
    assert len(first) == len(second) > len(NAMES)
