"""What every weighting does: its set-up, its state, its copies, its refusals."""

import copy

import pytest
import torch
from torch import nn

from attribguard.errors import RangeError
from attribguard.weighting import GradNorm, Uncertainty

NAMES = ["criterion", "actdiff", "draw a mask"]
WEIGHTS = {"criterion": 1.0, "actdiff": 10.0, "draw a mask": 0.5}
KINDS = pytest.mark.parametrize("kind", [Uncertainty, GradNorm])


def make(kind, names=NAMES):
    weighting = kind()
    weighting.setup(names, torch.empty(0))
    return weighting


def train(weighting, steps=3):
    """Some steps on three losses of one layer, after which nothing that is learned is where it started."""
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.SGD([*layer.parameters(), *weighting.parameters()], lr=0.02)
    for _ in range(steps):
        terms = dict(zip(NAMES, layer(torch.randn(5, 4)).square().mean(0) * torch.tensor([1.0, 3.0, 9.0]), strict=True))
        loss, _ = weighting(terms, WEIGHTS, [layer.weight])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def in_force(weighting):
    terms = dict.fromkeys(NAMES, torch.tensor(1.0))
    return weighting.eval()(terms, WEIGHTS)[1]


@KINDS
def test_training_starts_at_the_fixed_weights(kind):
    loss, started = make(kind).eval()({name: torch.tensor(2.0) for name in NAMES}, WEIGHTS)
    assert {name: weight.item() for name, weight in started.items()} == WEIGHTS
    assert loss == 23


@KINDS
def test_one_float32_parameter_a_term_whatever_the_model_has(kind):
    weighting = kind()
    weighting.setup(NAMES, torch.empty(0, dtype=torch.float64))
    assert all(p.shape == () and p.dtype == torch.float32 and p.requires_grad for p in weighting.parameters())
    assert len(list(weighting.parameters())) == 3


@KINDS
def test_weights_in_force_are_detached_scalars(kind):
    weighting = make(kind)
    train(weighting)
    assert all(weight.shape == () and not weight.requires_grad for weight in in_force(weighting).values())
    assert all(in_force(weighting)[name] != WEIGHTS[name] for name in NAMES)


@KINDS
def test_the_state_dict_carries_what_was_learned_whatever_the_order_of_the_terms(kind, tmp_path):
    weighting, other = make(kind), make(kind, NAMES[::-1])
    train(weighting)
    torch.save(weighting.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert in_force(other) == in_force(weighting)
    assert {n: b.item() for n, b in other.named_buffers()} == {n: b.item() for n, b in weighting.named_buffers()}


@KINDS
def test_the_state_of_other_terms_is_refused(kind):
    with pytest.raises(RuntimeError, match="actdiff"):
        make(kind).load_state_dict(make(kind, ["criterion", "rrr", "draw a mask"]).state_dict())


@KINDS
def test_a_copy_learns_by_itself(kind):
    weighting = make(kind)
    train(weighting)
    before, twin = in_force(weighting), copy.deepcopy(weighting)
    train(twin.train())
    assert in_force(weighting) == before != in_force(twin)


@KINDS
def test_a_second_set_up_with_the_same_terms_keeps_what_was_learned(kind):
    weighting = make(kind)
    train(weighting)
    before, parameters = in_force(weighting), list(weighting.parameters())
    weighting.setup(NAMES[::-1], torch.empty(0))
    assert in_force(weighting) == before
    assert all(map(torch.Tensor.is_set_to, parameters, weighting.parameters()))


@KINDS
@pytest.mark.parametrize("names", [NAMES[:2], [*NAMES, "rrr"]])
def test_a_second_set_up_with_other_terms_is_refused(kind, names):
    weighting = make(kind)
    with pytest.raises(RangeError, match="make a new one"):
        weighting.setup(names, torch.empty(0))
    assert weighting.names == tuple(NAMES)


@KINDS
def test_a_name_that_fits_no_state_dict_is_refused_before_anything_is_created(kind):
    weighting = kind()
    with pytest.raises(RangeError, match=r"\['act\.diff'\]"):
        weighting.setup(["criterion", "act.diff"], torch.empty(0))
    assert weighting.names == () and not weighting.state_dict()


@KINDS
@pytest.mark.parametrize(
    ("names", "terms", "weights"),
    [([], ["criterion"], WEIGHTS), (NAMES, ["criterion", "rrr"], WEIGHTS | {"rrr": 1.0}), (NAMES, NAMES, {})],
    ids=["no set-up", "another term", "no weight"],
)
def test_an_unknown_term_is_refused(kind, names, terms, weights):
    with pytest.raises(RangeError, match="pass the weighting to wrap"):
        make(kind, names)(dict.fromkeys(terms, torch.tensor(1.0)), weights)


@KINDS
def test_half_precision_terms_are_weighed_in_float32(kind):
    """In bfloat16 the sum of 100 and 0.1 is 100."""
    terms = {"criterion": torch.tensor(100.0), "actdiff": torch.tensor(1e-2)}
    weighting = make(kind).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = weighting({name: term.bfloat16() for name, term in terms.items()}, WEIGHTS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(100.1, abs=1e-3)


@KINDS
def test_double_precision_terms_stay_double(kind):
    loss, _ = make(kind).eval()({"criterion": torch.tensor(1 / 3, dtype=torch.float64)}, WEIGHTS)
    assert loss.dtype == torch.float64 and loss == 1 / 3


@KINDS
def test_in_evaluation_it_compiles_to_one_graph(kind):
    torch._dynamo.reset()
    weighting = make(kind)
    train(weighting)
    terms = {name: torch.rand(()) for name in NAMES}
    expected = weighting.eval()(terms, WEIGHTS)
    compiled = torch.compile(weighting, backend="aot_eager", fullgraph=True)(terms, WEIGHTS)
    torch.testing.assert_close(compiled, expected)
    torch._dynamo.reset()
