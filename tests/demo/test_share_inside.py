import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attribguard.demo.saliency import saliency, share_inside


def smooth_network():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 4, 2)).double().eval()


def slopes(model, image, step=1e-6):
    """|d |z1 - z0| / dx| of one image (1, H, W), pixel by pixel, by central differences."""

    def contrast(x):
        z0, z1 = model(x[None])[0].tolist()
        return abs(z1 - z0)

    slope = torch.zeros_like(image)
    for y, x in torch.cartesian_prod(*map(torch.arange, image.shape[1:])).tolist():
        up, down = image.clone(), image.clone()
        up[0, y, x] += step
        down[0, y, x] -= step
        slope[0, y, x] = abs(contrast(up) - contrast(down)) / (2 * step)
    return slope


def test_saliency_is_the_slope_of_the_contrast_of_each_image_alone():
    model, images = smooth_network(), torch.rand(3, 1, 4, 4, dtype=torch.float64)
    expected = torch.stack([slopes(model, image) for image in images])
    torch.testing.assert_close(saliency(model, images, torch.tensor([0, 1, 0])), expected, rtol=1e-6, atol=1e-8)


def test_saliency_leaves_images_and_parameters_alone():
    model, images = smooth_network(), torch.rand(2, 1, 4, 4, dtype=torch.float64)
    maps = saliency(model, images, torch.tensor([0, 1]))
    assert not maps.requires_grad
    assert not images.requires_grad and images.grad is None
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_share_inside_of_a_map_made_by_hand():
    maps = torch.tensor([[[[3.0, 1.0], [0.0, 4.0]]], [[[0.0, 0.0], [2.0, 0.0]]], [[[0.0, 5.0], [0.0, 0.0]]]])
    region = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]], [[[1.0, 0.0], [1.0, 0.0]]], [[[1.0, 0.0], [1.0, 1.0]]]])
    assert share_inside(maps, region).tolist() == [0.5, 1.0, 0.0]


def test_a_map_of_nothing_has_no_share_inside():
    assert share_inside(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).tolist() == [0.0]


@pytest.mark.filterwarnings("error")
@given(st.integers(0, 2**31), st.sampled_from([1e-38, 1e-6, 1.0, 1e30]))
def test_a_share_lies_between_0_and_1(seed, scale):
    draws = torch.Generator().manual_seed(seed)
    maps = scale * torch.rand(4, 1, 5, 5, generator=draws) ** 8
    region = (torch.rand(4, 1, 5, 5, generator=draws) < 0.5).float()
    shares = share_inside(maps, region)
    assert ((shares >= 0) & (shares <= 1)).all()
    torch.testing.assert_close(shares + share_inside(maps, 1 - region), torch.ones(4))
