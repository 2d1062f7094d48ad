"""Input gradients as heat maps."""

import pytest
import torch
from torch import nn

from attribguard.attribution import saliency
from attribguard.errors import AttribGuardError
from tests.networks import batch, plain_cnn


def network(outputs):
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, outputs)).double().eval()


def slopes(score, image, step=1e-6):
    """Central differences of a score of one image, pixel by pixel."""
    slope = torch.zeros_like(image)
    for place in torch.cartesian_prod(*map(torch.arange, image.shape)).tolist():
        up, down = image.clone(), image.clone()
        up[tuple(place)] += step
        down[tuple(place)] -= step
        slope[tuple(place)] = (score(up) - score(down)) / (2 * step)
    return slope


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_it_is_the_steepest_channels_slope_of_the_contrast_of_each_image_alone(outputs):
    model, x, y = network(outputs), torch.rand(2, 2, 4, 4, dtype=torch.float64), torch.tensor([0, 1])

    def contrast(image, target):
        z = model(image[None])[0].tolist()
        if outputs == 1:
            return abs(z[0])
        if outputs == 2:
            return abs(z[1] - z[0])
        return z[target] - max(z[:target] + z[target + 1 :])

    expected = [
        slopes(lambda i, t=t: contrast(i, t), image).abs().amax(0) for image, t in zip(x, y.tolist(), strict=True)
    ]
    torch.testing.assert_close(saliency(model, x, y), torch.stack(expected), rtol=1e-5, atol=1e-8)


def test_another_score_is_another_gradient():
    model, x = network(3), torch.rand(2, 2, 4, 4, dtype=torch.float64)
    expected = slopes(lambda image: model(image[None])[0, 1].item(), x[0]).abs().amax(0)
    torch.testing.assert_close(saliency(model, x, 1, score="target")[0], expected, rtol=1e-5, atol=1e-8)


def test_images_and_model_stay_as_they_were():
    model = plain_cnn(norm=True, dropout=0.5).train()
    x, y, _ = batch()
    buffers = [b.clone() for b in model.buffers()]
    with torch.inference_mode():
        first, second = saliency(model, x, y), saliency(model, x, y)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not first.requires_grad and not x.requires_grad and x.grad is None
    assert all(p.grad is None for p in model.parameters()) and all(m.training for m in model.modules())
    assert all(map(torch.equal, model.buffers(), buffers))


@pytest.mark.parametrize(("target", "score"), [(5, "contrast"), (0, "shape"), (torch.zeros(1).long(), "target")])
def test_a_target_or_score_that_cannot_be_is_refused(target, score):
    with pytest.raises(AttribGuardError):
        saliency(plain_cnn(), batch()[0], target, score=score)
