"""A test of paired differences that assumes nothing but that the two could change places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attribguard.probes.interval import Resampling

__all__ = ["sign_flip_test"]

# Flips whose sums differ by rounding alone are ties.
_ROUNDING = 1e-12


def sign_flip_test(differences: NDArray[np.float64], resampling: Resampling) -> float:
    r"""The p value of the sum of differences when each could as well have had the other sign.

    Fisher's randomisation test of paired samples, two-sided: how often :math:`|\sum_g \pm d_g|` is at least
    :math:`|\sum_g d_g|`. With groups, :math:`d_g` is the sum over the images of one, whose numbers depend on each other
    and change their signs together; the mean over images is this sum but for a constant.

    Args:
        differences: (G,) finite, one for each unit that changes its sign as a whole.
        resampling: number and seed of random flips.

    Returns:
        In (0, 1]. Exact, over all :math:`2^G` flips, where they are no more than ``n_resamples``; otherwise
        :math:`(1 + k) / (1 + n)`, k of the n random flips being at least as extreme. nan without a difference.

    Example:
        >>> sign_flip_test(np.array([0.3, 0.1, 0.3, 0.2]), Resampling())
        0.125
    """
    g = len(differences)
    if g == 0:
        return np.nan
    scale = np.abs(differences).sum()
    observed = abs(differences.sum()) - _ROUNDING * scale
    n = resampling.n_resamples
    exact = 2**g <= n
    total, batch, extreme = 2**g if exact else n, resampling.batch(g), 0
    generator = np.random.default_rng(resampling.seed)
    for start in range(0, total, batch):
        stop = min(start + batch, total)
        if exact:
            flips = np.arange(start, stop)[:, None] >> np.arange(g) & 1
        else:
            flips = generator.integers(0, 2, (stop - start, g), dtype=np.int8)
        # The sum of all minus twice the sum of those that change their sign.
        sums = differences.sum() - 2 * (flips @ differences)
        extreme += int((np.abs(sums) >= observed).sum())
    return extreme / total if exact else (1 + extreme) / (1 + total)
