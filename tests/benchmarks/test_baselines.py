"""The published steps, against loops and what is known of linear networks."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import baselines
from tests.functional.oracles import cam_by_loops, log_softmax_by_loops, outside_by_loops
from tests.networks import batch, plain_cnn
from tests.oracles import actdiff, as_array, pixels_where


def linear_network(side):
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 2)).double()


def test_actdiff_is_the_papers_equation():
    clean, corrupted = ([torch.randn(3, 2, 4, 4), torch.randn(3, 5)] for _ in range(2))
    expected = actdiff([as_array(a) for a in clean], [as_array(b) for b in corrupted], "l2")
    np.testing.assert_allclose(as_array(baselines.actdiff(clean, corrupted)), expected, rtol=1e-5)


def test_gradmask_of_a_linear_network_is_the_length_of_its_rows_difference_outside():
    net = linear_network(6)
    x, _, mask = batch(size=6, dtype=torch.float64)
    found = baselines.gradmask(net(x.requires_grad_()), x, mask)
    rows = (net[1].weight[1] - net[1].weight[0]).view(1, 1, 6, 6).expand(4, -1, -1, -1)
    expected = [sum(v * v for v in values) ** 0.5 for values in outside_by_loops(rows, mask)]
    np.testing.assert_allclose(as_array(found), expected)


def test_rrr_of_a_linear_network_is_the_sum_of_its_squared_gradient_outside():
    net = linear_network(6)
    x, _, mask = batch(size=6, dtype=torch.float64)
    logits = net(x.requires_grad_())
    found = baselines.rrr(logits, x, mask)
    w = net[1].weight.detach()
    gradients = []
    for row in logits.tolist():
        p = np.exp(log_softmax_by_loops(row))
        # d/dx of sum_k log p_k is sum_k w_k - K sum_j p_j w_j.
        gradients.append((w[0] + w[1] - 2 * (p[0] * w[0] + p[1] * w[1])).view(1, 6, 6))
    expected = [sum(v * v for v in values) for values in outside_by_loops(torch.stack(gradients), mask)]
    np.testing.assert_allclose(as_array(found), expected)


def test_gradcam_rrr_is_the_public_codes_map_of_the_predicted_class():
    net = plain_cnn(channels=3)
    x, _, mask = batch(channels=3)
    logits, layer = net(x), net[3]
    features = net[:4](x).detach().requires_grad_()
    predicted = logits.argmax(1)
    (gradient,) = torch.autograd.grad(net[4:](features).gather(1, predicted[:, None]).sum(), features)
    cam = as_array(cam_by_loops(features.detach(), gradient, "gradcam"))
    expected = []
    for one, m in zip(cam, mask[:, 0].numpy(), strict=True):
        stretched = (one - one.min()) / (one.max() - one.min() + 1e-6)
        expected.append(((stretched * (1 - m)) ** 2).sum())
    found = baselines.gradcam_rrr(net, layer, logits, x, mask)
    np.testing.assert_allclose(as_array(found), expected, rtol=1e-4)
    found.sum().backward()
    assert net[-1].weight.grad is None, "the channel weights are constants"


def test_the_shuffle_keeps_the_inside_and_moves_the_outside_jointly_over_channels():
    x, _, mask = batch(channels=3)
    shuffled = baselines.shuffle_outside(x, mask)
    for before, after, inside in zip(x, shuffled, mask[:, 0] > 0.5, strict=True):
        assert torch.equal(before[:, inside], after[:, inside])
        assert pixels_where(before, ~inside) == pixels_where(after, ~inside)
        assert not torch.equal(before, after)


def test_a_step_adds_up_what_it_is_asked_for():
    torch.manual_seed(0)
    net = plain_cnn(channels=3).double()
    x, y, mask = batch(channels=3, dtype=torch.float64)
    names = ["actdiff", "gradmask", "rrr", "gradcamrrr"]
    zero = lambda x, mask: torch.where(mask > 0.5, x, 0)  # noqa: E731

    def gradient(penalties):
        net.zero_grad()
        baselines.published_step(net, x, y, mask, penalties, layer=net[3], shuffle=zero)
        return torch.cat([p.grad.flatten() for p in net.parameters()])

    net.zero_grad()
    F.cross_entropy(net(x), y).backward()
    plain = torch.cat([p.grad.flatten() for p in net.parameters()])
    torch.testing.assert_close(gradient([]), plain)
    each = [gradient([name]) - plain for name in names]
    assert all(part.abs().max() > 1e-6 for part in each)
    torch.testing.assert_close(gradient(names), plain + sum(each))
