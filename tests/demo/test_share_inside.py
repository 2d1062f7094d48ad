import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.demo.share_inside import share_inside


def test_the_share_inside_of_a_map_made_by_hand():
    maps = torch.tensor([[[3.0, 1.0], [0.0, 4.0]], [[0.0, 0.0], [2.0, 0.0]], [[0.0, 5.0], [0.0, 0.0]]])
    region = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 1.0]]])
    assert share_inside(maps, region).tolist() == [0.5, 1.0, 0.0]


def test_a_map_of_nothing_has_no_share_inside():
    assert share_inside(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)).tolist() == [0.0]


@pytest.mark.filterwarnings("error")
@given(st.integers(0, 2**31), st.sampled_from([1e-38, 1e-6, 1.0, 1e30]))
def test_a_share_lies_between_0_and_1(seed, scale):
    draws = torch.Generator().manual_seed(seed)
    maps = scale * torch.rand(4, 5, 5, generator=draws) ** 8
    region = (torch.rand(4, 5, 5, generator=draws) < 0.5).float()
    shares = share_inside(maps, region)
    assert ((shares >= 0) & (shares <= 1)).all()
    torch.testing.assert_close(shares + share_inside(maps, 1 - region), torch.ones(4))
