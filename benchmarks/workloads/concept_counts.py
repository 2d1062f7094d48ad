"""How many connected components of each unit's map meet the region."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from attribguard.functional.concepts import count_concepts
from benchmarks.peers import peer
from benchmarks.workload import Absent, Bar, Case, Check, Part, Sweep, Workload

OURS, STACKED = "sparse graph", "scipy, one call on the stack"
BY_SKIMAGE, BY_SCIPY = "scikit-image, map by map", "scipy, map by map"
Q = 0.005
SHARE = 8  # of the images, one in so many is counted map by map


def make(device, images, units, side):
    # Noise with the smoothness of a convolution's maps, each unit above its own threshold on a share Q of all places.
    maps = F.avg_pool2d(torch.randn(images, units, side + 2, side + 2, device=device), 3, 1)
    rows = maps.transpose(0, 1).flatten(1)
    limits = rows.kthvalue(rows.shape[1] - int(Q * rows.shape[1]), 1).values
    active = maps > limits[:, None, None]
    region = torch.zeros(images, side, side, dtype=torch.bool, device=device)
    region[:, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = True
    stack, boxes = active.cpu().numpy(), region.cpu().numpy()
    few = max(1, images // SHARE)
    measure = peer("skimage.measure")

    def label(grid):
        return measure.label(grid, connectivity=2)

    runs = {
        OURS: lambda: count_concepts(active, region),
        STACKED: lambda: stacked(stack, boxes),
        BY_SCIPY: Part(lambda: map_by_map(stack[:few], boxes, label_by_scipy), few / images),
        BY_SKIMAGE: Part(lambda: map_by_map(stack[:few], boxes, label), few / images)
        if measure
        else Absent("scikit-image is not installed"),
    }

    def checks():
        ours = count_concepts(active, region).cpu().numpy()
        found = [
            Check(f"counts that differ from {STACKED}", (ours != stacked(stack, boxes)).sum(), 0),
            Check(f"counts that differ from {BY_SCIPY}", (ours[:few] != runs[BY_SCIPY]()).sum(), 0),
        ]
        if measure:
            found.append(Check(f"counts that differ from {BY_SKIMAGE}", (ours[:few] != runs[BY_SKIMAGE]()).sum(), 0))
        return found

    return Case(runs, checks)


def label_by_scipy(grid):
    return ndimage.label(grid, np.ones((3, 3)))[0]


def map_by_map(stack, boxes, label):
    """(n, U) counts: label one map, and see which labels the region holds."""
    counts = np.zeros(stack.shape[:2], np.int64)
    for i, box in enumerate(boxes[: len(stack)]):
        for unit, grid in enumerate(stack[i]):
            labels = np.unique(label(grid)[box])
            counts[i, unit] = len(labels) - (len(labels) > 0 and labels[0] == 0)
    return counts


def stacked(stack, boxes):
    """(N, U) counts: one call labels all maps, under a structure that does not join them."""
    n, units, height, width = stack.shape
    apart = np.zeros((3, 3, 3))
    apart[1] = 1
    labels, _ = ndimage.label(stack.reshape(n * units, height, width), apart)
    places = np.flatnonzero(stack & boxes[:, None])
    _, first = np.unique(labels.ravel()[places], return_index=True)
    return np.bincount(places[first] // (height * width), minlength=n * units).reshape(n, units)


PLACE = 80
WORKLOADS = [
    Workload(
        "concepts_coarse",
        "Concept counts, 64 images, 2048 maps of 7 x 7",
        make,
        size={"images": 64, "units": 2048, "side": 7},
        quick={"images": 8, "units": 32, "side": 7},
        bars=[Bar(BY_SKIMAGE, OURS, least=150), Bar(BY_SCIPY, OURS), Bar(STACKED, OURS, least=3)],
        sweeps=[
            Sweep("images", (16, 32, 64), {OURS: 1.0, STACKED: 1.0}),
            Sweep("units", (512, 1024, 2048), {OURS: 1.0, STACKED: 1.0}),
        ],
        text="Counted map by map on one image in eight, and scaled up in proportion.",
    ),
    Workload(
        "concepts_fine",
        "Concept counts, 64 images, 256 maps of 28 x 28",
        make,
        size={"images": 64, "units": 256, "side": 28},
        quick={"images": 8, "units": 8, "side": 28},
        bars=[Bar(BY_SKIMAGE, OURS, least=12), Bar(BY_SCIPY, OURS), Bar(STACKED, OURS, least=3)],
        sweeps=[Sweep("side", (14, 28, 56), {OURS: 2.0, STACKED: 2.0})],
        text="Counted map by map on one image in eight, and scaled up in proportion.",
    ),
]
