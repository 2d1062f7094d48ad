"""What the tests of the phantoms measure images with."""

import numpy as np
import torch


def grays(item):
    """The image as whole grays, 0 to 255: (H, W) int."""
    return (item["image"][0] * 255).round().int().numpy()


def column(data, name):
    """One number of every item, as an array."""
    return np.array([int(item[name]) for item in data])


def same(a, b):
    """Whether two items are equal in every key."""
    return a.keys() == b.keys() and all(
        torch.equal(a[name], b[name]) if isinstance(a[name], torch.Tensor) else a[name] == b[name] for name in a
    )


def changed(before, after, item, least=1):
    """Where two data sets that should differ in one thing do, by at least so many grays: (H, W) bool."""
    return np.abs(grays(before[item]) - grays(after[item])) >= least


def allowed_error(share, n):
    """Four standard deviations of the share of n draws, each of which succeeds with this probability."""
    return 4 * np.sqrt(max(share * (1 - share), 1e-9) / n)
