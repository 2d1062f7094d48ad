"""The paper's experiment on its own data: does the scan name the decoy of a network that has learned it?"""

import numpy as np
import pytest
import torch

from attribguard.data import DECOY_CELLS, DecoyFashion
from attribguard.probes.patch_swap import patch_swap_scan
from examples import decoy_fashion as example

SNEAKER, SHIRT = 7, 6


@pytest.fixture(scope="module")
def scan(fashion_mnist):
    torch.manual_seed(0)
    network = example.paper_network()
    for _ in example.train(network, DecoyFashion("train", fashion_mnist, n=12_000), [], 2):
        pass
    test = DecoyFashion("test", fashion_mnist)
    sources, targets = (test[(test.targets == k).nonzero()[:n, 0]]["image"] for k, n in ((SNEAKER, 40), (SHIRT, 50)))
    # 20 sneakers that it takes for sneakers: without another network in between, sources are those it gets right.
    with torch.no_grad():
        right = network(sources).argmax(1) == SNEAKER
    return patch_swap_scan(network, sources[right][:20], targets, source_class=SNEAKER, patch_size=4, passes=100)


def test_the_decoy_is_first_on_all_of_twenty_sources(scan):
    assert scan.certainty.shape == (20, 50, 49) and scan.left_out == 0
    assert (scan.curves.argmin(1) == DECOY_CELLS[SNEAKER]).all() and scan.argmin == DECOY_CELLS[SNEAKER]


def test_the_decoy_is_named_and_nothing_else(scan):
    assert scan.suspects(alpha=0.01, min_drop=0.1) == [DECOY_CELLS[SNEAKER]]
    irrelevant = scan.irrelevant_mask(alpha=0.01)[0, 0] == 0
    top, left = scan.grid.corner(DECOY_CELLS[SNEAKER])
    assert irrelevant.sum() == 16 and irrelevant[top : top + 4, left : left + 4].all()


def test_the_drop_is_large_at_the_decoy_and_small_elsewhere(scan):
    assert scan.drop[DECOY_CELLS[SNEAKER]] >= 0.35
    assert np.delete(scan.drop, DECOY_CELLS[SNEAKER]).max() <= 0.08
