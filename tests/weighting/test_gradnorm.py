"""GradNorm: the paper's algorithm step by step, its effect, what is left out, half precision, processes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attribguard.errors import ModelError, RangeError, TypeMismatchError
from attribguard.weighting import GradNorm
from tests.weighting import oracles


class Regressions(nn.Module):
    """One shared matrix, a vector a task."""

    def __init__(self, count, dtype=torch.float64):
        super().__init__()
        self.shared = nn.Parameter(torch.randn(3, 4, dtype=dtype))
        self.heads = nn.ParameterList([torch.randn(4, dtype=dtype) for _ in range(count)])
        self.register_buffer("x", torch.randn(6, 3, dtype=dtype))
        self.register_buffer("targets", torch.randn(count, 6, dtype=dtype))

    def forward(self):
        features = self.x @ self.shared
        pairs = zip(self.heads, self.targets, strict=True)
        return named([(features @ head - target).square().mean() for head, target in pairs])


def named(values):
    return {f"t{i}": value for i, value in enumerate(values)}


def make(count, alpha=1.5):
    weighting = GradNorm(alpha)
    weighting.setup([f"t{i}" for i in range(count)], torch.empty(0))
    return weighting


def factors(weighting):
    return torch.stack(list(weighting.parameters())).detach()


def set_factors(weighting, *values):
    with torch.no_grad():
        for parameter, value in zip(weighting.parameters(), values, strict=True):
            parameter.fill_(value)


def slopes(weighting):
    return torch.stack([p.grad for p in weighting.parameters()])


@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_it_is_the_papers_algorithm_over_several_steps(alpha):
    model, weighting, fixed, rate = Regressions(3), make(3, alpha), [1.0, 4.0, 0.3], 0.005
    arrays = [t.detach().numpy().copy() for t in (model.x, model.shared)]
    heads, targets = [h.detach().numpy().copy() for h in model.heads], list(model.targets.numpy())
    expected = oracles.train(oracles.Tasks(*arrays, heads, targets), fixed, alpha, rate, steps=8)
    optimizer = torch.optim.SGD([*model.parameters(), *weighting.parameters()], lr=rate)
    for step in range(9):
        terms = model()
        loss, in_force = weighting(terms, named(fixed), [model.shared])
        if step:
            ours = [in_force[name].item() / w for name, w in zip(terms, fixed, strict=True)]
            np.testing.assert_allclose(ours, expected[step - 1], rtol=2e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert np.ptp(expected[-1]) > 0.1  # the weights did move


def test_the_gradient_of_the_factors_is_that_of_the_imbalance_by_hand():
    """Norms 3 and 4 * 10, mean 21.5, no progress yet: the first wants more, the second less."""
    shared, weighting = nn.Parameter(torch.ones(2)), make(2)
    weighting({"t0": 3 * shared[0], "t1": 4 * shared[1]}, {"t0": 1.0, "t1": 10.0}, [shared])[0].backward()
    assert slopes(weighting).tolist() == [-3, 40]


@pytest.mark.parametrize("progress", [0.75, 1.0, 1.25])
def test_alpha_favours_the_term_that_has_made_less_progress(progress):
    """Equal norms of 1; the first is still at its first value, the second at a quarter of it, at 0 or below."""
    shared, weighting = nn.Parameter(torch.ones(2)), make(2, alpha=1.5)
    weighting(named(shared.unbind()), named([1.0, 1.0]), [shared])
    loss, _ = weighting({"t0": shared[0], "t1": shared[1] - progress}, named([1.0, 1.0]), [shared])
    loss.backward()
    assert slopes(weighting).tolist() == [-1, 1]


@pytest.mark.parametrize(("first", "later"), [((1e-42, 1.0), (1.0, 1.0)), ((1.0, 1.0), (0.0, 0.0))])
def test_first_values_next_to_0_and_losses_of_0_make_no_nan(first, later):
    shared, weighting = nn.Parameter(torch.ones(2)), make(2)
    for values in (first, later):
        weighting.zero_grad()
        terms = [value + (p - p.detach()) for value, p in zip(values, shared, strict=True)]
        weighting(named(terms), named([1.0, 1.0]), [shared])[0].backward()
    assert slopes(weighting).isfinite().all() and (slopes(weighting) != 0).all()


def test_value_and_the_models_gradients_are_those_of_the_weighted_sum():
    model, weighting, fixed = Regressions(3), make(3), named([1.0, 10.0, 0.5])
    for _ in range(2):  # in the second step the factors are other than 1
        model.zero_grad()
        terms = model()
        loss, in_force = weighting(terms, fixed, [model.shared])
        by_hand = sum(in_force[name].double() * terms[name] for name in terms)
        expected = torch.autograd.grad(by_hand, list(model.parameters()), retain_graph=True)
        loss.backward()
        assert loss.item() == pytest.approx(by_hand.item(), rel=1e-6)
        torch.testing.assert_close([p.grad for p in model.parameters()], list(expected))
        set_factors(weighting, 0.3, 0.9, 1.8)
    assert [in_force[name].item() for name in fixed] == pytest.approx([0.3, 9.0, 0.9])


def test_a_term_100_times_larger_is_brought_to_the_others_gradient_norm():
    model, weighting, fixed = Regressions(3, torch.float32), make(3, alpha=0.0), named([1.0, 100.0, 1.0])
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.05)
    spread = []
    for _ in range(300):
        terms = model()
        loss, in_force = weighting(terms, fixed, [model.shared])
        gradients = [torch.autograd.grad(term, model.shared, retain_graph=True)[0] for term in terms.values()]
        sizes = [in_force[name] * gradient.norm() for name, gradient in zip(terms, gradients, strict=True)]
        spread.append((max(sizes) / min(sizes)).item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.98
    assert spread[0] > 50 and spread[-1] < 1.05


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.sampled_from([0.0, 1e-30, 0.5, 1.0, 1e4]), st.sampled_from([0.0, 0.1, 30.0])),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([0.0, 1.5]),
)
def test_factors_are_positive_with_the_number_of_terms_as_their_sum_and_all_is_finite(drawn, alpha):
    weighting, shared = make(len(drawn), alpha), nn.Parameter(torch.ones(len(drawn)))
    fixed = named([weight for *_, weight in drawn])
    for _ in range(2):
        weighting.zero_grad()
        set_factors(weighting, *(factor for factor, _, _ in drawn))
        terms = named([scale * p for (_, scale, _), p in zip(drawn, shared, strict=True)])
        loss, in_force = weighting(terms, fixed, [shared])
        loss.backward()
        assert loss.isfinite() and slopes(weighting).isfinite().all()
        assert (factors(weighting) > 0).all()
        assert factors(weighting).sum().item() == pytest.approx(len(drawn), rel=1e-5)
        for i, name in enumerate(fixed):
            assert in_force[name].item() == pytest.approx(fixed[name] * factors(weighting)[i].item(), rel=1e-5)


def without(model, kind):
    """The terms of a model, the last one in a state in which there is nothing to balance, and its weight."""
    terms = model()
    if kind == "weight 0":
        return terms, 0.0
    if kind == "absent":
        return {name: term for name, term in terms.items() if name != "t2"}, 2.0
    nobody = torch.zeros(6, dtype=torch.bool)
    silent = {
        "nobody annotated": torch.where(nobody, (model.x @ model.shared).sum(1), 0).sum(),
        "not connected": model.heads[2].square().sum(),
        "a constant": torch.tensor(3.0),
        "infinite": model.shared.sum() + torch.inf,
        "of infinite gradient": (model.shared - model.shared.detach()).sqrt().sum() + 1,
    }
    return terms | {"t2": silent[kind]}, 2.0


SILENT = ["weight 0", "absent", "nobody annotated", "not connected", "a constant", "infinite", "of infinite gradient"]


@pytest.mark.parametrize("kind", SILENT)
def test_a_term_with_nothing_to_balance_is_left_out_and_keeps_its_fixed_weight(kind):
    model, weighting, smaller = Regressions(3), make(3), make(2)
    for _ in range(3):
        terms, weight = without(model, kind)
        fixed = named([1.0, 5.0, weight])
        loss, in_force = weighting(terms, fixed, [model.shared])
        loss.backward()
        expected, of_two = smaller({name: model()[name] for name in ("t0", "t1")}, fixed, [model.shared])
        expected.backward()
        assert {name: in_force[name] for name in of_two} == of_two
        assert in_force.get("t2", weight) == weight and weighting.start_t2.isnan()
        assert slopes(weighting).tolist() == [*slopes(smaller).tolist(), 0]
        with torch.no_grad():
            for parameter in (*weighting.parameters(), *smaller.parameters()):
                parameter.sub_(0.01 * parameter.grad)
                parameter.grad = None
            weighting.factor_t2.sub_(0.2)  # as weight decay does
            model.shared.add_(0.1)
    assert (factors(smaller) != 1).all()


def test_a_term_that_has_been_balanced_keeps_its_factor_through_a_step_without_it():
    model, weighting, fixed = Regressions(2), make(2), named([1.0, 1.0])
    weighting(model(), fixed, [model.shared])
    set_factors(weighting, 0.5, 1.5)
    terms = model()
    loss, in_force = weighting(terms | {"t1": 0 * terms["t1"]}, fixed, [model.shared])
    loss.backward()
    assert [w.item() for w in in_force.values()] == [0.5, 1.5]
    assert slopes(weighting).tolist() == [0, 0]  # one term alone is in balance


def test_the_first_value_is_recorded_at_the_first_step_at_which_there_is_one():
    shared, weighting, fixed = nn.Parameter(torch.ones(2)), make(2), named([1.0, 7.0])
    seen = []
    for factor in (0.0, 2.0, 3.0):
        weighting({"t0": shared[0], "t1": factor * shared[1]}, fixed, [shared])
        seen.append(weighting.start_t1.item())
    assert math.isnan(seen[0]) and seen[1:] == [2, 2]
    assert weighting.start_t0 == 1


def test_a_negative_value_is_no_first_value():
    shared, weighting, fixed = nn.Parameter(torch.ones(2)), make(2), named([1.0, 1.0])
    loss, _ = weighting({"t0": shared[0], "t1": -shared[1]}, fixed, [shared])
    loss.backward()
    assert weighting.start_t1.isnan() and slopes(weighting).isfinite().all()


def test_a_fixed_weight_that_warms_up_does_not_look_like_progress():
    found = []
    for first in (0.01, 1.0):
        shared, weighting = nn.Parameter(torch.tensor([1.0, 2.0])), make(2)
        weighting(named(shared.unbind()), named([1.0, first]), [shared])
        loss, _ = weighting({"t0": shared[0] / 4, "t1": shared[1] / 2}, named([1.0, 1.0]), [shared])
        loss.backward()
        found.append(slopes(weighting))
    assert torch.equal(*found)


@pytest.mark.parametrize("mode", ["eval", "no_grad"])
def test_outside_training_steps_nothing_is_differentiated_or_recorded(mode):
    weighting, fixed = make(2), named([1.0, 4.0])
    with torch.no_grad():
        weighting.start_t0.fill_(1)
        weighting.start_t1.fill_(1)
        weighting.factor_t0.fill_(-1)
        weighting.factor_t1.fill_(3)
    before = {name: value.clone() for name, value in weighting.state_dict().items()}
    weighting.train(mode != "eval")
    with torch.set_grad_enabled(mode == "eval"):
        loss, in_force = weighting(named([torch.tensor(1.0, requires_grad=True), torch.tensor(1.0)]), fixed)
    assert [w.item() for w in in_force.values()] == pytest.approx([0.0, 8.0], abs=1e-5)
    assert in_force["t0"] > 0 and loss.item() == pytest.approx(8.0)
    assert all(torch.equal(value, before[name]) for name, value in weighting.state_dict().items())


@pytest.mark.parametrize("case", ["none", "frozen", "none depends on them"])
def test_shared_parameters_that_cannot_serve_are_refused_before_anything_is_changed(case):
    model, weighting = Regressions(2), make(2)
    weighting.start_t0.fill_(1)
    weighting.factor_t0.data.fill_(5)
    model.shared.requires_grad_(case != "frozen")
    shared = {"none": [], "frozen": [model.shared], "none depends on them": [nn.Parameter(torch.ones(2))]}[case]
    with pytest.raises(ModelError, match="trainable parameters that the terms have in common"):
        weighting(model(), named([1.0, 1.0]), shared)
    assert weighting.factor_t0 == 5


class Refusing(torch.autograd.Function):
    """Has no backward pass."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no way back")


def test_a_graph_that_cannot_be_differentiated_by_itself_is_refused_with_the_reason():
    shared = nn.Parameter(torch.ones(2))
    with pytest.raises(ModelError, match=r"no way back.*Uncertainty"):
        make(1)({"t0": Refusing.apply(shared).sum()}, {"t0": 1.0}, [shared])


def test_a_term_of_weight_0_costs_no_backward_pass():
    shared = nn.Parameter(torch.ones(2))
    make(2)({"t0": shared.sum(), "t1": Refusing.apply(shared).sum()}, {"t0": 1.0, "t1": 0.0}, [shared])


def test_in_a_compiled_graph_it_is_refused():
    torch._dynamo.reset()
    weighting, shared = make(1), nn.Parameter(torch.ones(2))
    compiled = torch.compile(weighting, backend="aot_eager", fullgraph=True)
    # Before torch 2.7 the compiler does not pass the reason on.
    with pytest.raises(Exception, match=r"leave the guard uncompiled|Observed exception|Graph break"):
        compiled({"t0": shared.sum()}, {"t0": 1.0}, [shared])
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("alpha", "error"),
    [(-0.1, RangeError), (math.nan, RangeError), (math.inf, RangeError), ("1", TypeMismatchError)],
)
def test_an_alpha_out_of_range_is_refused(alpha, error):
    with pytest.raises(error, match="alpha"):
        GradNorm(alpha)


def norms(terms, weights, shared):
    """Of the weighted gradients, from what arrives at the factors; no norm may be equal to the mean of all."""
    weighting = make(len(terms), alpha=0.0)
    weighting(named(terms), named(weights), [shared])[0].backward()
    return slopes(weighting).abs()


def test_gradients_too_small_for_half_precision_are_measured_all_the_same():
    """What is below 6e-8 is 0 in float16; 3 million times 1e-6 of a term is three times that term."""
    layer, x = nn.Linear(4, 4, bias=False), torch.rand(8, 4)
    found = []
    for half in (False, True):
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            out = layer(x)
            assert out.dtype == (torch.float16 if half else torch.float32)
            term = out.float().square().mean()
            found.append(norms([term, 1e-6 * term], [1.0, 3e6], layer.weight))
    torch.testing.assert_close(found[0][1], 3 * found[0][0])
    torch.testing.assert_close(found[1], found[0], rtol=1e-2, atol=0)


def test_gradients_too_large_to_be_scaled_are_measured_unscaled():
    layer, x = nn.Linear(4, 4, bias=False), torch.rand(8, 4)
    nn.init.ones_(layer.weight)
    expected = x.sum(0).norm() * 2  # four equal rows
    with torch.autocast("cpu", dtype=torch.float16):
        term = layer(x).float().sum()
        found = norms([term, 1e3 * term], [1.0, 1.0], layer.weight)
    torch.testing.assert_close(found, torch.stack([expected, 1e3 * expected]), rtol=1e-2, atol=0)


def test_a_float32_layer_is_differentiated_in_float32_under_autocast():
    shared, x = nn.Parameter(torch.randn(8, 8)), torch.randn(16, 8)
    term = (x @ shared).square().mean()
    expected = torch.autograd.grad(term, shared, retain_graph=True)[0].norm()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norms([term, 2 * term], [1.0, 1.0], shared)
    torch.testing.assert_close(found, torch.stack([expected, 2 * expected]))


def test_training_with_a_loss_scaler_stays_finite_and_steps_the_factors():
    layer, weighting = nn.Linear(4, 4), make(2)
    optimizer = torch.optim.SGD([*layer.parameters(), *weighting.parameters()], lr=1e-3)
    scaler, x = torch.amp.GradScaler("cpu", init_scale=2.0**8), torch.rand(8, 4)
    for _ in range(5):
        with torch.autocast("cpu", dtype=torch.float16):
            out = layer(x)
            terms = {"t0": out.square().mean(), "t1": 100 * out.abs().mean()}
            loss, _ = weighting(terms, named([1.0, 1.0]), [layer.weight, layer.bias])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    assert factors(weighting)[0] > 1 > factors(weighting)[1] and factors(weighting).isfinite().all()
    assert all(p.isfinite().all() for p in layer.parameters())
