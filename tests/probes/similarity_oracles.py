"""Slow ways to the probes' numbers, in float64 arrays and on all rows at once."""

import numpy as np


def cka_by_gram_matrices(x, y):
    """Kornblith et al. 2019, Eqs. 3 and 4 with linear kernels: HSIC of the (n, n) matrices of inner products."""
    of_x, of_y = (_centred(rows @ rows.T) for rows in (x, y))
    return (of_x * of_y).sum() / np.sqrt((of_x * of_x).sum() * (of_y * of_y).sum())


def _centred(k):
    return k - k.mean(0) - k.mean(1)[:, None] + k.mean()


def rows_by_loops(features):
    """(N, C, h, w) to a row a position."""
    n, _, height, width = features.shape
    return np.stack([features[i, :, y, x] for i in range(n) for y in range(height) for x in range(width)])


def cosine(a, b):
    """Of two lists of arrays, each one long vector."""
    a, b = (np.concatenate([np.ravel(part) for part in parts]) for parts in (a, b))
    return a @ b / np.sqrt((a @ a) * (b @ b))
