"""A scan as the paper describes it: one image and one forward pass at a time, with masks that are put in by hand."""

import math
from collections.abc import Callable
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Case(NamedTuple):
    """A network with dropout, and the same pass written out with masks as arguments."""

    network: nn.Module
    by_hand: Callable[[Tensor, list[Tensor]], Tensor]
    masks: list[tuple[tuple[int, ...], float]]  # shape for one image, share dropped
    way: str


def drop(x, keep, p):
    return x * keep / (1 - p)


def paper():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 3)
    )
    return Case(
        net, lambda x, keeps: net[5](drop(net[2](net[1](net[0](x))), keeps[0], 0.5).flatten(1)), [((4, 4, 4), 0.5)],
        "LinearPasses",
    )  # fmt: skip


class Shortcut(nn.Module):
    """Two functional dropouts, a shortcut around the first, BatchNorm."""

    def __init__(self, inplace=False):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.fc, self.inplace = nn.BatchNorm2d(4), nn.Linear(4 * 4, 3), inplace

    def forward(self, x):
        x = F.relu(self.norm(self.conv1(x)))
        y = F.dropout(self.conv2(x), 0.3, self.training)
        if self.inplace:
            x += y
        else:
            x = x + y
        return self.fc(F.dropout(F.adaptive_avg_pool2d(x, 2).flatten(1), p=0.2, training=self.training))

    def by_hand(self, x, keeps):
        x = F.relu(self.norm(self.conv1(x)))
        x = x + drop(self.conv2(x), keeps[0], 0.3)
        return self.fc(drop(F.adaptive_avg_pool2d(x, 2).flatten(1), keeps[1], 0.2))


def shortcut(inplace=False):
    net = Shortcut(inplace)
    net.norm.running_mean.normal_()
    return Case(net, net.by_hand, [((4, 8, 8), 0.3), ((16,), 0.2)], "RepeatedPasses" if inplace else "MappedPasses")


def overwritten_shortcut():
    return shortcut(inplace=True)


def whole_channels():
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.Dropout2d(0.4), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2)
    )
    return Case(net, lambda x, keeps: net[2:](drop(net[0](x), keeps[0], 0.4)), [((6, 1, 1), 0.4)], "MappedPasses")


def channels_before_the_classifier():
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Dropout2d(0.4, inplace=True), nn.Flatten(), nn.Linear(216, 2))
    return Case(net, lambda x, keeps: net[3:](drop(net[:2](x), keeps[0], 0.4)), [((6, 1, 1), 0.4)], "LinearPasses")


def timm_head():
    net = timm.create_model("resnet10t", in_chans=1, num_classes=3, drop_rate=0.4, drop_path_rate=0.5)
    return Case(
        net,
        lambda x, keeps: net.fc(drop(net.global_pool(net.forward_features(x)), keeps[0], 0.4)),
        [((512,), 0.4)],
        "LinearPasses",
    )


def alpha():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.SELU(), nn.Flatten(), nn.AlphaDropout(0.3), nn.Linear(144, 2))

    def by_hand(x, keeps):
        # Klambauer et al. (2017), Section 3: dropped values become alpha', then an affine map restores the moments.
        floor, q = -1.6732632423543772 * 1.0507009873554805, 0.7
        a = (q + floor**2 * q * (1 - q)) ** -0.5
        dropped = torch.where(keeps[0], net[:3](x), torch.tensor(floor))
        return net[4](a * dropped - a * (1 - q) * floor)

    return Case(net, by_hand, [((144,), 0.3)], "LinearPasses")


class Windows(nn.Module):
    """The image's four quarters along the first axis, as in Swin's attention; sequence dropout of whole channels."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.fc = nn.Linear(16, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def tokens(self, x):
        quarters = x.view(len(x), 2, 4, 2, 4).transpose(2, 3).reshape(len(x) * 4, 1, 16)
        return self.embed(quarters)

    def forward(self, x):
        n = len(x)
        x = F.dropout(self.tokens(x).softmax(-1), 0.25, self.training)
        x = self.mix(x).view(n, 4, 6).transpose(1, 2)
        return self.fc(F.dropout1d(x, 0.35, self.training).amax(2))

    def by_hand(self, x, keeps):
        x = self.mix(drop(self.tokens(x).softmax(-1), keeps[0], 0.25)).view(1, 4, 6).transpose(1, 2)
        return self.fc(drop(x, keeps[1], 0.35).amax(2))


def windows():
    net = Windows()
    return Case(net, net.by_hand, [((4, 1, 6), 0.25), ((6, 1), 0.35)], "MappedPasses")


CASES = {
    case.__name__: case
    for case in (
        paper, shortcut, overwritten_shortcut, whole_channels, channels_before_the_classifier, timm_head, alpha,
        windows,
    )
}  # fmt: skip


def draw_masks(seed, passes, shapes):
    """T streams from one seed; each gives the masks of one pass, in the order of the calls."""
    seeds = torch.randint(2**63 - 1, (passes,), generator=torch.Generator().manual_seed(seed))
    masks = []
    for each in seeds.tolist():
        stream = torch.Generator().manual_seed(each)
        masks.append([torch.rand(shape, generator=stream) >= p for shape, p in shapes])
    return masks


@torch.no_grad()
def scan(case, sources, targets, classes, masks, patch, stride):
    """Certainties (S, N, P) and baseline (S,) in float64, by T * P * N * S forward passes in eval mode."""
    case.network.eval()
    tops = range(0, sources.shape[2] - patch + 1, stride)
    lefts = range(0, sources.shape[3] - patch + 1, stride)
    positions = [(top, left) for top in tops for left in lefts]

    def certainty(image, label):
        return math.fsum(case.by_hand(image[None], keeps).softmax(1)[0, label].item() for keeps in masks) / len(masks)

    certainties = torch.empty(len(sources), len(targets), len(positions), dtype=torch.float64)
    for s, source in enumerate(sources):
        for n, target in enumerate(targets):
            for p, (top, left) in enumerate(positions):
                swapped = source.clone()
                swapped[:, top : top + patch, left : left + patch] = target[:, top : top + patch, left : left + patch]
                certainties[s, n, p] = certainty(swapped, classes[s])
    return certainties.numpy(), [certainty(*each) for each in zip(sources, classes, strict=True)]
