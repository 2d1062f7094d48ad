"""A small network with two scales, and a batch with both kinds of annotation."""

import torch
from torch import nn

import attribguard as ag
from tests.networks import batch

SHAPE = (1, 12, 12)
PARTLY = torch.tensor([True, False, True, True])


def strided(channels=1, *, norm=False, inplace=False):
    """Two halving convolutions, whose maps a decoder finds at the ReLUs; without `norm` each image is alone."""
    layers = []
    for cin, cout in ((channels, 4), (4, 8)):
        layers += [nn.Conv2d(cin, cout, 3, 2, 1), nn.BatchNorm2d(cout) if norm else nn.Identity(), nn.ReLU(inplace)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


def annotated_batch(n=4, channels=1, size=12, dtype=torch.float32):
    """Images in [0, 1], targets, masks (N, 1, H, W) and segmentations (N, H, W)."""
    x, y, mask = batch(n, channels, size, dtype=dtype)
    return x.sigmoid(), y, mask, torch.randint(0, 2, (n, size, size))


def both(**settings):
    """A head of each kind."""
    return [ag.SegmentationHead(2, 0.4, **settings), ag.ReconstructionHead(0.3)]


def guarded(heads=None, model=None, **options):
    model = strided() if model is None else model
    return ag.wrap(model, heads=both() if heads is None else heads, **{"example_input": SHAPE, **options})


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters()}
