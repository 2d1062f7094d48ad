import pytest
import torch
from torch import nn

from attribguard.network import Network
from attribguard.probes.patch_swap import stochastic_passes
from attribguard.probes.patch_swap.changed_windows import Box
from attribguard.probes.patch_swap.dropout_calls import find_dropouts
from attribguard.probes.patch_swap.dropout_masks import Masks
from attribguard.probes.patch_swap.patch_grid import PatchGrid
from attribguard.probes.patch_swap.stochastic_passes import (
    MappedPasses,
    RepeatedPasses,
    choose_passes,
    images_at_a_time,
    plain_logits,
)
from attribguard.probes.patch_swap.swaps import Alike
from tests.probes.patch_swap.one_pass_at_a_time import CASES, draw_masks


def chosen(network, passes=6, independent=False):
    network = Network(network.eval(), None)
    x = torch.randn(3, 1, 8, 8)
    dropouts = find_dropouts(network.model, network.logits, x)
    masks = Masks(dropouts, passes, 1, independent, x.device)
    with torch.no_grad():
        return choose_passes(network, dropouts, masks, x, passes), masks, dropouts, network


@pytest.mark.parametrize("name", CASES)
def test_the_fastest_way_that_gives_the_same_is_taken(name):
    case = CASES[name]()
    assert type(chosen(case.network)[0]).__name__ == case.way


@pytest.mark.parametrize("name", CASES)
def test_every_way_gives_the_logits_of_passes_one_after_the_other(name):
    case = CASES[name]()
    way, masks, _, _ = chosen(case.network)
    x = torch.randn(7, 1, 8, 8)
    with torch.no_grad():
        logits = torch.cat(list(way.logits(x.clone(), masks.keep(7))))
        expected = torch.stack(
            [case.by_hand(x[i : i + 1], keeps) for keeps in draw_masks(1, 6, case.masks) for i in range(7)]
        )
    torch.testing.assert_close(logits, expected.view(6, 7, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_independent_masks_give_the_logits_of_passes_one_after_the_other(name):
    way, masks, dropouts, network = chosen(CASES[name]().network, independent=True)
    assert type(way).__name__ != "LinearPasses"
    x, keeps = torch.randn(4, 1, 8, 8), masks.keep(4)
    with torch.no_grad():
        logits = torch.cat(list(way.logits(x.clone(), keeps)))
        expected = torch.cat(list(RepeatedPasses(network, dropouts).logits(x.clone(), keeps)))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_what_follows_is_not_taken_for_the_classifier_because_its_size_fits():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Tanh(), nn.Linear(64, 3))
    assert type(chosen(network)[0]).__name__ == "MappedPasses"


@pytest.mark.parametrize("alike", [True, False])
def test_images_that_differ_from_a_source_in_a_patch_give_the_product_of_all_features(alike):
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, 3, bias=False)).double()
    x = torch.randn(150, 1, 8, 8, dtype=torch.float64)
    groups = []
    if alike:
        source, patch = torch.randn(1, 1, 8, 8, dtype=torch.float64), Box(slice(0, 3), slice(4, 8))
        x = torch.where(PatchGrid((8, 8), 3, 1).inside(torch.tensor([4])), x, source)
        groups = [Alike(100, source, patch), Alike(50, source, patch)]
    network_, masks = Network(network.eval(), None), None
    dropouts = find_dropouts(network, network, x)
    masks = Masks(dropouts, 5, 1, False, x.device)
    with torch.no_grad():
        way = choose_passes(network_, dropouts, masks, x, 5)
        logits = torch.cat(list(way.logits(x, masks.keep(150), groups)))
    keep = masks.keep(1)[0].double() / 0.7
    expected = torch.einsum("nd,td,kd->tnk", x.flatten(1), keep[:, 0], network[2].weight)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)


def test_passes_that_do_not_fit_into_memory_come_in_parts(monkeypatch):
    case = CASES["paper"]()
    way, masks, _, _ = chosen(case.network, passes=7)
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        (whole,) = way.logits(x, masks.keep(5))
        monkeypatch.setattr(stochastic_passes, "_NUMBERS", 3 * (64 * 3 + 3 * 5))
        parts = list(way.logits(x, masks.keep(5)))
    assert [len(part) for part in parts] == [3, 3, 1]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_batches_shrink_with_passes_and_images_so_that_memory_is_bounded():
    _, _, dropouts, network = chosen(CASES["shortcut"]().network)
    few, many = (MappedPasses(network, dropouts, passes) for passes in (10, 100_000))
    assert many.numbers == 10_000 * few.numbers
    small, large = torch.empty(1, 1, 8, 8), torch.empty(1, 3, 512, 512)
    assert images_at_a_time(few, small) == 128 and images_at_a_time(few, small.to("meta")) == 512
    assert images_at_a_time(many, small) == 2
    assert 1 <= images_at_a_time(few, large) < 20


def test_a_plain_pass_is_the_network_in_eval_mode():
    _, _, dropouts, network = chosen(CASES["shortcut"]().network)
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(plain_logits(network, dropouts, x), network.model(x))
