"""Two passes that draw alike, in eager mode and as a compiled graph does it."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

from attribguard.draws import EagerDraws, TracedDraws
from attribguard.errors import ModelError


class Attend(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x) * torch.rand(x.shape[0], 1, 1, 1)


SEEN = {
    "dropout": nn.Dropout(0.4),
    "dropout in place": nn.Sequential(nn.Identity(), nn.Dropout(0.4, inplace=True)),
    "dropout2d": nn.Dropout2d(0.5),
    "drop path": DropPath(0.5),
    "stochastic depth": StochasticDepth(0.5, "row"),
    "noise": Noise(),
}
FUSED = {"attention": Attend(), "alpha dropout": nn.AlphaDropout(0.5), "rrelu": nn.RReLU()}


def two_passes(draws, module, x):
    with draws.recorded():
        first = module(x.clone())
    torch.rand(5)  # something else draws in between
    with draws.replayed():
        second = module(x.clone())
    return first, second


@pytest.mark.parametrize("name", [*SEEN, *FUSED])
def test_eager_passes_draw_alike_and_the_state_goes_on(name):
    module = {**SEEN, **FUSED}[name]
    x = torch.randn(6, 3, 4, 4) + 1
    first, second = two_passes(EagerDraws(x.device), module, x)
    after = torch.rand(3)
    torch.manual_seed(0)
    torch.randn(6, 3, 4, 4)
    assert torch.equal(module(x.clone()), first)
    torch.rand(5)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(first, second)
    assert not torch.equal(module(x.clone()), first)


@pytest.mark.parametrize("name", SEEN)
def test_traced_passes_draw_alike_and_as_without_the_mode(name):
    module, x = SEEN[name], torch.randn(6, 3, 4, 4) + 1
    torch.manual_seed(1)
    expected = module(x.clone())
    torch.manual_seed(1)
    first, second = two_passes(TracedDraws(), module, x)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize("name", FUSED)
def test_what_a_graph_cannot_repeat_is_refused_unless_it_is_off(name):
    module, x = FUSED[name], torch.randn(6, 3, 4, 4)
    with pytest.raises(ModelError, match="random draws"):
        two_passes(TracedDraws(), module, x)
    if name != "attention":
        two_passes(TracedDraws(), module.eval(), x)
        module.train()


def test_eager_draws_know_whether_anything_was_drawn():
    x = torch.randn(2, 3)
    for module, drew in ((nn.Linear(3, 3), False), (nn.Dropout(), True)):
        draws = EagerDraws(x.device)
        with draws.recorded():
            module(x)
        assert draws.any is drew


def test_the_random_state_goes_on_after_an_exception():
    draws = EagerDraws(torch.device("cpu"))
    with draws.recorded():
        torch.rand(3)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="size"), draws.replayed():
        torch.rand(2) @ torch.rand(3)
    assert torch.equal(torch.get_rng_state(), state)
