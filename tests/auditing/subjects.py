"""Networks and images of which the audit's figures can be worked out by hand."""

import torch
from torch import nn

SIZE = 8


class Corner(nn.Module):
    """Class 1 where the upper left quarter is bright, class 0 where the lower right one is; looks nowhere else."""

    def __init__(self, swap=False):
        super().__init__()
        self.pool = nn.AvgPool2d(SIZE // 2)
        self.mix = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(8, 2, bias=False)
        self.calls = 0
        with torch.no_grad():
            self.mix.weight.fill_(1.0)
            self.head.weight.zero_()
            first, last = (1, 0) if swap else (0, 1)
            # (channel, row, column), flattened: the first channel's upper left, the second one's lower right.
            self.head.weight[1, 0 if first == 0 else 3] = 9.0
            self.head.weight[0, 7 if last == 1 else 4] = 9.0

    def forward(self, x):
        self.calls += 1
        return self.head(self.mix(self.pool(x)).flatten(1))


def bright(targets):
    """Images (N, 1, 8, 8) whose class the corners show, and masks (N, 1, 8, 8) of the bright quarter."""
    half = SIZE // 2
    images = torch.zeros(len(targets), 1, SIZE, SIZE)
    for image, target in zip(images, targets, strict=True):
        where = slice(0, half) if target == 1 else slice(half, SIZE)
        image[0, where, where] = 1
    return images, (images > 0).float()


def batches(n=12, size=5, **extra):
    """Of both classes in turn; the third image of each five is mislabelled where ``wrong`` is given."""
    targets = torch.arange(n) % 2
    images, masks = bright(targets)
    for start in range(0, n, size):
        part = slice(start, start + size)
        yield {"image": images[part], "target": targets[part], "mask": masks[part]} | {
            key: values[part] for key, values in extra.items()
        }
