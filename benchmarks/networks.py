"""The networks and batches that workloads share, all with random weights."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribguard.models.actdiff_resnet18 import actdiff_resnet18


class Batch(NamedTuple):
    """Images (N, 3, H, W), classes (N,), masks (N, 1, H, W) with a relevant square in the middle."""

    x: Tensor
    y: Tensor
    mask: Tensor


def random_batch(n: int, side: int, device: torch.device, channels: int = 3) -> Batch:
    """Noise, two classes in turn, and a relevant square of two fifths of the side."""
    mask = torch.zeros(n, 1, side, side, device=device)
    mask[:, :, 3 * side // 10 : 7 * side // 10, 3 * side // 10 : 7 * side // 10] = 1
    return Batch(torch.randn(n, channels, side, side, device=device), torch.arange(n, device=device) % 2, mask)


def resnet18(norm: str = "batch", width: int = 64) -> nn.Module:
    """ResNet-18 for two classes; its ReLUs leave what enters them as it is, so that all contestants can read it."""
    return actdiff_resnet18(2, 3, channels=width, norm=norm)


class UNetEncoder(nn.Module):
    """The downward path of a UNet with a classifier; without norm, so that it treats each image alone."""

    def __init__(self, width: int = 16, levels: int = 4) -> None:
        super().__init__()
        self.widths = [width << level for level in range(levels)]
        self.levels = nn.ModuleList(map(double_convolution, [3, *self.widths[:-1]], self.widths))
        self.fc = nn.Linear(self.widths[-1], 2)

    def maps(self, x: Tensor) -> list[Tensor]:
        """What each level gives, the finest first."""
        found: list[Tensor] = []
        for level in self.levels:
            found.append(level(F.max_pool2d(found[-1], 2) if found else x))
        return found

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.maps(x)[-1].mean((2, 3)))


class UNetPath(nn.Module):
    """The upward path, which draws the image again from the levels' maps."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        upward = widths[-2::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in upward)
        self.blocks = nn.ModuleList(double_convolution(2 * w, w) for w in upward)
        self.out = nn.Conv2d(widths[0], 3, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        *skips, y = maps
        for up, block, skip in zip(self.up, self.blocks, reversed(skips), strict=True):
            missing = skip.shape[-1] - 2 * y.shape[-1]  # where the side was odd
            y = block(torch.cat([F.pad(up(y), (0, missing, 0, missing)), skip], 1))
        return self.out(y)


def double_convolution(entering: int, width: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with a ReLU."""
    return nn.Sequential(
        nn.Conv2d(entering, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
    )


class PaperNetwork(nn.Sequential):
    """The network of Hagos et al.: one convolution, pooling, dropout, a linear layer, for gray images of 28 x 28."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5), nn.Flatten(),
            nn.Linear(32 * 14 * 14, classes),
        )  # fmt: skip


class DropoutInTheMiddle(nn.Sequential):
    """Half of its convolutions before the one dropout, half behind it."""

    def __init__(self, classes: int = 10, width: int = 32) -> None:
        super().__init__(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Dropout(0.5),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
        )  # fmt: skip
