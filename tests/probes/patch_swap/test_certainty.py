import itertools

import pytest
import torch
from torch import nn

from attribguard.errors import ModelError, RangeError
from attribguard.network import Network
from attribguard.probes.patch_swap.certainty import Certainty, count_classes, dropout_inserted


def make(network, x, passes=4000, reduce="mean", independent=False, seed=0, batch_size=None):
    with torch.no_grad():
        return Certainty(Network(network.eval(), None), x, passes, reduce, independent, seed, batch_size)


def exact(network, x, p):
    """The expected probabilities, from every mask that six features can have."""
    expected = torch.zeros(len(x), 2, dtype=torch.float64)
    for kept in itertools.product([0.0, 1.0], repeat=6):
        mask = torch.tensor(kept, dtype=torch.float64)
        chance = torch.where(mask == 1, 1 - p, p).prod()
        expected += chance * network(x.flatten(1) * mask / (1 - p)).softmax(1)
    return expected


@pytest.mark.parametrize("independent", [False, True])
def test_many_passes_come_close_to_the_expectation_over_all_masks(independent):
    linear = nn.Linear(6, 2).double()
    x, classes = torch.randn(5, 1, 2, 3, dtype=torch.float64) * 3, torch.tensor([0, 1, 0, 1, 1])
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.4), linear)
    with torch.no_grad():
        certainty = make(network, x, independent=independent).of(x, classes)
        expected = exact(linear, x, 0.4)[torch.arange(5), classes]
    # A probability's standard deviation is at most 0.5.
    torch.testing.assert_close(certainty, expected, rtol=0, atol=5 * 0.5 / 4000**0.5)
    assert (certainty - expected).abs().max() > 0


def test_common_masks_make_equal_images_equal_and_independent_ones_do_not():
    x = torch.randn(1, 1, 2, 3).repeat(4, 1, 1, 1)
    network, classes = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(6, 2)), torch.zeros(4, dtype=torch.long)
    with torch.no_grad():
        common = make(network, x, passes=10).of(x, classes)
        own = make(network, x, passes=10, independent=True).of(x, classes)
    torch.testing.assert_close(common, common[:1].expand(4), rtol=0, atol=1e-6)
    assert len(own.unique()) == 4


def test_median_is_that_of_the_passes():
    x, classes = torch.randn(3, 1, 2, 3), torch.tensor([0, 1, 1])
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(6, 2))
    with torch.no_grad():
        certainty = make(network, x, passes=8, reduce="median")
        keeps = certainty._masks.keep(3)[0]
        each = torch.stack([network[2](x.flatten(1) * keep / 0.5).softmax(1)[range(3), classes] for keep in keeps])
        torch.testing.assert_close(certainty.of(x, classes), torch.quantile(each, 0.5, 0))


@pytest.mark.parametrize("passes", [1, 50])
def test_one_logit_tells_two_classes(passes):
    x = torch.randn(6, 1, 2, 3)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(6, 1))
    with torch.no_grad():
        certainty = make(network, x, passes=passes)
        of_0, of_1 = (certainty.of(x, torch.full((6,), k)) for k in (0, 1))
        torch.testing.assert_close(of_0 + of_1, torch.ones(6))
        assert torch.equal(certainty.predict(x), (network(x)[:, 0] > 0).long())
        if passes == 1:
            torch.testing.assert_close(of_1, network(x)[:, 0].sigmoid())
    assert count_classes(Network(network, None), x) == 2


def test_batches_do_not_matter():
    x, classes = torch.randn(7, 1, 2, 3), torch.arange(7) % 2
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(6, 2))
    with torch.no_grad():
        certainty = make(network, x, passes=9, batch_size=2)
        torch.testing.assert_close(certainty.of_all(x, classes), certainty.of(x, classes), rtol=0, atol=1e-6)
        assert torch.equal(certainty.predict(x), network(x).argmax(1))


def test_half_precision_logits_give_float32_probabilities():
    x, classes = torch.randn(3, 1, 2, 3).bfloat16(), torch.tensor([0, 1, 1])
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(6, 2)).bfloat16()
    with torch.no_grad():
        assert make(network, x, passes=10).of(x, classes).dtype == torch.float32


def test_logits_that_are_not_finite_are_one_clear_error():
    x = torch.randn(3, 1, 2, 3)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(6, 2))
    with torch.no_grad():
        network[2].bias.fill_(float("nan"))
        with pytest.raises(ModelError, match="not finite"):
            make(network, x, passes=3).of(x, torch.zeros(3, dtype=torch.long))


def test_inserted_dropout_stands_before_the_classifier_and_goes_away():
    x = torch.randn(3, 1, 8, 8)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)).eval()
    own = nn.Sequential(*network[:3], nn.Dropout(0.3), network[3])
    classes = torch.tensor([0, 1, 1])
    wrapped = Network(network, None)
    with torch.no_grad():
        with dropout_inserted(wrapped, x, 0.3):
            certainty = Certainty(wrapped, x, 20, "mean", False, 0, None).of(x, classes)
        torch.testing.assert_close(certainty, make(own, x, passes=20).of(x, classes))
    assert not network[3]._forward_pre_hooks


def test_no_dropout_is_one_clear_error_that_offers_both_ways_out():
    with pytest.raises(ModelError, match=r"passes=1 .* or dropout=0.5"):
        make(nn.Sequential(nn.Flatten(), nn.Linear(6, 2)), torch.randn(3, 1, 2, 3), passes=10)


def test_dropout_is_not_inserted_beside_the_networks_own():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(6, 2)).eval()
    wrapped = Network(network, None)
    refused = pytest.raises(RangeError, match="for a network that has dropout")
    with refused, dropout_inserted(wrapped, torch.randn(3, 1, 2, 3), 0.5):
        pass


def test_dropout_is_not_inserted_where_nobody_knows_the_classifier():
    network = nn.Sequential(nn.Linear(3, 3), nn.Flatten()).eval()
    wrapped = Network(network, None)
    refused = pytest.raises(ModelError, match="no linear or convolutional module")
    with refused, dropout_inserted(wrapped, torch.randn(3, 1, 2, 3), 0.5):
        pass


def test_logits_of_another_shape_are_one_clear_error():
    with pytest.raises(ModelError, match=r"logits of shape \('N', 1, 2, 3\)"):
        count_classes(Network(nn.Identity(), None), torch.randn(3, 1, 2, 3))
