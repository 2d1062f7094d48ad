"""Linear CKA of representations that come part by part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["LinearCKA"]

# How many rows stand in float64 at a time.
_ROWS = 16384


class LinearCKA:
    r"""How alike several networks represent the same inputs, whatever the order and rotation of their channels.

    .. math::
        \mathrm{CKA}(X, Y) = \frac{\| Y^\top X \|_F^2}{\| X^\top X \|_F \, \| Y^\top Y \|_F}

    for matrices with a row an input and a column a channel, each column centred: 1 for equal representations, up to
    an orthogonal transform and one factor for all channels; 0 for uncorrelated ones. Kornblith et al. (2019),
    "Similarity of Neural Network Representations Revisited", linear kernel. It wants more rows than channels: with
    fewer, even unrelated representations come out alike.

    Only the centred moments of the channels are kept, in float64, so that memory does not grow with the rows and the
    result is that of all rows at once.

    Args:
        channels: of each network; they may differ.
        device: where the moments are kept.

    Example:
        >>> cka = LinearCKA([2, 1])
        >>> cka.update([torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[3.0], [5.0]])])
        >>> cka.compute()
        tensor([[1., 1.],
                [1., 1.]], dtype=torch.float64)
    """

    def __init__(self, channels: Sequence[int], device: torch.device | None = None) -> None:
        self._channels, self._rows = list(channels), 0
        self._mean = torch.zeros(sum(channels), dtype=torch.float64, device=device)
        self._moment = torch.zeros(sum(channels), sum(channels), dtype=torch.float64, device=device)

    def update(self, representations: Sequence[Tensor]) -> None:
        """Add rows.

        Args:
            representations: (n, C) a network, n at least 1, row i of each for the same input.
        """
        for parts in zip(*(rows.split(_ROWS) for rows in representations), strict=True):
            # Side by side, the moments of the whole hold those of every pair.
            rows = torch.cat([part.to(self._mean) for part in parts], 1)
            n, mean = len(rows), rows.mean(0)
            centred, apart = rows - mean, mean - self._mean
            both = self._rows + n
            self._moment += centred.T @ centred + torch.outer(apart, apart) * (self._rows * n / both)
            self._mean += apart * (n / both)
            self._rows = both

    def compute(self) -> Tensor:
        """The similarity of each two networks.

        Returns:
            (G, G) float64 in [0, 1]; nan where a representation is the same for all rows, or there were none.
        """
        blocks = [rows.split(self._channels, 1) for rows in self._moment.split(self._channels)]
        squares = torch.stack([torch.stack([block.square().sum() for block in row]) for row in blocks])
        norms = squares.diagonal().sqrt()
        return squares / torch.outer(norms, norms)
