"""How often the scan names a patch of noise: scans of a network that sees nothing but the mean of the whole image.

    python -m tests.probes.patch_swap.false_alarms --scans 400

takes some minutes on one core and prints the share of scans with any suspect, for networks of gentle and steep slope,
with sources as they come and with sources that were chosen for their class.
"""

import argparse

import torch
from rich.console import Console
from torch import nn

from attribguard.probes.patch_swap import patch_swap_scan


class GlobalMean(nn.Module):
    """One number of an image, its mean, seen through dropout; two classes, one on either side of 0.5."""

    def __init__(self, slope):
        super().__init__()
        self.drop, self.fc = nn.Dropout(0.5), nn.Linear(16, 2)
        weight = torch.full((2, 16), slope / 32.0)
        weight[0].neg_()
        self.fc.weight.data, self.fc.bias.data = weight, torch.zeros(2)

    def forward(self, x):
        return self.fc(self.drop((x.mean((1, 2, 3)) - 0.5)[:, None].expand(-1, 16)))


def draw_sources(n, chosen, generator):
    """Noise as it comes, or the first images of class 1 of five times as many."""
    if not chosen:
        return torch.rand(n, 1, 28, 28, generator=generator)
    images = torch.rand(5 * n, 1, 28, 28, generator=generator)
    return images[images.mean((1, 2, 3)) > 0.5][:n]


def alarms(scans, sources=20, targets=50, passes=20, slope=40.0, chosen=True, alpha=0.05, seed=0):
    """How many of so many scans have a suspect at alpha and ``min_drop=0``."""
    generator = torch.Generator().manual_seed(seed)
    network, count = GlobalMean(slope), 0
    for number in range(scans):
        scan = patch_swap_scan(
            network,
            draw_sources(sources, chosen, generator),
            torch.rand(targets, 1, 28, 28, generator=generator),
            patch_size=4,
            passes=passes,
            generator=number,
            progress=False,
        )
        assert scan.certainty.shape == (sources, targets, 49) and scan.left_out == 0
        count += bool(scan.suspects(alpha=alpha, min_drop=0))
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--scans", type=int, default=400)
    number = parser.parse_args().scans
    torch.set_num_threads(1)
    for steepness in (40.0, 400.0):
        for by_class in (True, False):
            found = alarms(number, slope=steepness, chosen=by_class)
            kind = "of one class" if by_class else "as they come"
            Console().print(f"slope {steepness:g}, sources {kind}: {found / number:.1%}")
