"""Concepts, overlaps and thresholds by loops over single maps, pixels and values."""

import numpy as np
from scipy import ndimage


def threshold(values, q_in_thousandths):
    """The smallest value with at most the share q of the values above it, by trying them one after the other."""
    return min(v for v in values if sum(w > v for w in values) * 1000 <= q_in_thousandths * len(values))


def concepts(active, region, connectivity):
    """Components of one map that meet the region."""
    labels, n = ndimage.label(active, np.ones((3, 3)) if connectivity == 8 else None)
    return sum(bool((region & (labels == label)).any()) for label in range(1, n + 1))


def covered(mask, size):
    """The share of each cell that the mask covers, for a map whose sides divide the image's."""
    (height, width), (h, w) = mask.shape, size
    return np.array(
        [
            [
                mask[y * height // h : (y + 1) * height // h, x * width // w : (x + 1) * width // w].mean()
                for x in range(w)
            ]
            for y in range(h)
        ]
    )


def enlarged(grid, size):
    """Bilinear between the centres of cells, constant beyond the outer ones."""

    def weights(cells, pixels):
        matrix = np.zeros((pixels, cells))
        for pixel in range(pixels):
            at = min(max((pixel + 0.5) * cells / pixels - 0.5, 0), cells - 1)
            low = min(int(at), max(cells - 2, 0))
            matrix[pixel, low] += 1 - (at - low)
            matrix[pixel, min(low + 1, cells - 1)] += at - low
        return matrix

    return weights(grid.shape[0], size[0]) @ grid @ weights(grid.shape[1], size[1]).T


def active_and_region(grid, limit, mask, size):
    """Where one map is above its threshold and which cells or pixels the region meets, on the map or at the input."""
    if size == "map":
        return grid > limit, covered(mask, grid.shape) > 0
    return enlarged(grid, mask.shape) > limit, mask


def counts(features, thresholds, masks, connectivity, size):
    """(N, U) numbers of concepts, on images with a region."""
    rows = [i for i in range(len(features)) if masks[i].any()]
    table = np.zeros((len(rows), features.shape[1]), int)
    for row, i in enumerate(rows):
        for unit, limit in enumerate(thresholds):
            active, region = active_and_region(features[i, unit], limit, masks[i], size)
            table[row, unit] = concepts(active, region, connectivity)
    return table


def overlaps(features, thresholds, masks, size):
    """(U,): intersection over union, summed over images with a region, in pixels."""
    ratios = []
    for unit, limit in enumerate(thresholds):
        both = either = 0
        for grid, mask in zip(features[:, unit], masks, strict=True):
            if not mask.any():
                continue
            if size == "input":
                active = enlarged(grid, mask.shape) > limit
            else:
                scale = np.ones([side // cells for side, cells in zip(mask.shape, grid.shape, strict=True)])
                active = np.kron(grid > limit, scale) > 0
            both += (active & mask).sum()
            either += (active | mask).sum()
        ratios.append(both / either)
    return ratios
