"""Uncertainty: the formula by hand, where it leads, what has no part in it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attribguard.weighting import Uncertainty

FINITE = st.floats(-10, 10)
POSITIVE = st.floats(1e-3, 100)


def make(*log_variances):
    weighting = Uncertainty()
    weighting.setup([f"t{i}" for i in range(len(log_variances))], torch.empty(0))
    with torch.no_grad():
        for parameter, value in zip(weighting.parameters(), log_variances, strict=True):
            parameter.fill_(value)
    return weighting


def named(values):
    return {f"t{i}": value for i, value in enumerate(values)}


@given(st.lists(st.tuples(FINITE, POSITIVE, st.just(0.0) | POSITIVE), min_size=1, max_size=4))
def test_value_weights_and_gradients_are_those_of_the_formula(terms):
    """Of the sum over terms with a weight of w exp(-s) L + s / 2; the others have no part at all."""
    log_variances, weights, losses = zip(*[(s, w, loss) for s, loss, w in terms], strict=True)
    weighting = make(*log_variances)
    leaves = [torch.tensor(loss, requires_grad=True) for loss in losses]
    total, in_force = weighting(named(leaves), named(weights))
    total.backward()
    expected = 0.0
    for i, (s, w, loss) in enumerate(zip(log_variances, weights, losses, strict=True)):
        share = w * math.exp(-s)
        expected += share * loss + s / 2 if w else 0.0
        assert in_force[f"t{i}"].item() == pytest.approx(share, rel=1e-5)
        assert leaves[i].grad.item() == pytest.approx(share, rel=1e-5)
        slope = 0.5 - share * loss if w else 0.0
        assert list(weighting.parameters())[i].grad.item() == pytest.approx(slope, rel=1e-4, abs=1e-5)
    assert total.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_constant_losses_end_at_half_their_inverse_whatever_the_fixed_weights():
    losses, weights = (0.01, 0.6, 50.0), (1.0, 10.0, 0.3)
    weighting = make(0.0, 0.0, 0.0)
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.1)
    for _ in range(400):
        loss, in_force = weighting(named(map(torch.tensor, losses)), named(weights))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for i, loss in enumerate(losses):
        assert in_force[f"t{i}"].item() == pytest.approx(1 / (2 * loss), rel=1e-3)


def test_fixed_weights_and_the_half_of_regression_only_shift_the_log_variance():
    """The paper's form for regression, exp(-s) L / 2 + s / 2, where s is ours plus log 2 less log w."""
    s, weight, loss = 0.7, 5.0, 3.0
    ours, _ = make(s)(named([torch.tensor(loss)]), named([weight]))
    paper = s - math.log(2) - math.log(weight)
    shift = (math.log(2) + math.log(weight)) / 2
    assert ours.item() == pytest.approx(math.exp(-paper) * loss / 2 + paper / 2 + shift, rel=1e-6)


def test_a_term_that_is_absent_stays_in_the_graph_without_a_gradient():
    weighting = make(0.3, 0.3)
    loss, in_force = weighting({"t0": torch.tensor(1.0)}, {"t0": 1.0})
    loss.backward()
    assert set(in_force) == {"t0"}
    assert [p.grad != 0 for p in weighting.parameters()] == [True, False]


def test_a_term_that_is_always_0_does_not_drive_its_weight_to_infinity():
    weighting = make(0.0)
    optimizer = torch.optim.SGD(weighting.parameters(), lr=1.0)
    for _ in range(400):
        loss, in_force = weighting(named([torch.tensor(0.0)]), named([2.0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.isfinite() and 1e6 < in_force["t0"] < 1e7
    weighting.zero_grad()
    weighting(named([torch.tensor(1.0)]), named([2.0]))[0].backward()
    (parameter,) = weighting.parameters()
    assert parameter.grad == -in_force["t0"]  # what pulls it back is not cut off


@pytest.mark.parametrize("ambient", [torch.no_grad, torch.inference_mode])
def test_evaluation_uses_the_same_formula(ambient):
    weighting, terms, weights = make(0.5, -1.0), named(torch.tensor([2.0, 3.0])), named([1.0, 4.0])
    expected = weighting(terms, weights)
    with ambient():
        evaluated = weighting.eval()(terms, weights)
    assert evaluated[0] == expected[0] and evaluated[1] == expected[1]
    assert not evaluated[0].requires_grad


def test_one_graph_gives_the_same_loss_and_gradients():
    class Guarded(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.weighting = nn.Linear(3, 2), make(0.5, -1.0, 2.0)

        def forward(self, x):
            out = self.layer(x)
            return self.weighting(named([out.square().mean(), out.abs().mean(), out.exp().mean()]), named([1.0, 3, 0]))

    torch._dynamo.reset()
    guarded, x = Guarded(), torch.randn(5, 3)
    found = []
    for call in (guarded, torch.compile(guarded, backend="aot_eager", fullgraph=True)):
        guarded.zero_grad()
        loss, in_force = call(x)
        loss.backward()
        found.append([loss.detach(), *in_force.values(), *(p.grad.clone() for p in guarded.parameters())])
    torch.testing.assert_close(found[1], found[0])
    torch._dynamo.reset()
