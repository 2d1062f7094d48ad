"""The cosine between the gradients that several terms send into the parameters they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribguard.errors import ModelError

__all__ = ["GradientCosine", "gradient_cosine"]


@dataclass(frozen=True, eq=False)
class GradientCosine:
    """The cosines between the gradients of a guard's terms, over several batches.

    Attributes:
        terms: the terms' names, T of them.
        mean: (T, T) in [-1, 1], over the batches that counted; nan where none did.
        error: (T, T), the standard error of that mean; nan where fewer than two batches counted.
        skipped: (T, T) integers: batches left out, in which one of the two gradients was absent, zero or not finite.
    """

    terms: tuple[str, ...]
    mean: NDArray[np.float64] = field(repr=False)
    error: NDArray[np.float64] = field(repr=False)
    skipped: NDArray[np.int64] = field(repr=False)

    @classmethod
    def over(cls, terms: Sequence[str], batches: Sequence[Tensor]) -> GradientCosine:
        """Put the batches together.

        Args:
            terms: the terms' names.
            batches: (T, T) each, as ``gradient_cosine`` gives them.
        """
        cosines = torch.stack(list(batches))
        counted = (~cosines.isnan()).sum(0)
        mean = cosines.nanmean(0)
        variance = (cosines - mean).square().nansum(0) / (counted - 1)
        error = (variance / counted).sqrt()  # of one batch or none, 0 / 0
        return cls(tuple(terms), mean.numpy(), error.numpy(), (len(cosines) - counted).numpy())


def gradient_cosine(terms: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """Differentiate each term and compare the gradients, two and two, over the parameters that both terms reach.

    Args:
        terms: name to scalar, with its graph; T of them.
        parameters: what to differentiate with respect to. A term reaches those on which it depends in the graph.

    Returns:
        (T, T) float64 on the CPU; nan where a gradient is absent, zero or not finite.

    Raises:
        ModelError: if the graph cannot be gone through once a term.

    Example:
        >>> w = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> gradient_cosine({"a": w[0], "b": -3 * w.sum()}, [w])
        tensor([[ 1.0000, -0.7071],
                [-0.7071,  1.0000]], dtype=torch.float64)
    """
    gradients = [_gradient(term, parameters) for term in terms.values()]
    products, squares = torch.zeros(2, len(terms), len(terms), dtype=torch.float64)
    for parameter, parts in zip(parameters, zip(*gradients, strict=True), strict=True):
        reached = torch.tensor([part is not None for part in parts], dtype=torch.float64)
        filled = [torch.zeros_like(parameter) if part is None else part for part in parts]
        rows = torch.stack([part.flatten().double() for part in filled])
        product = (rows @ rows.T).cpu()
        products += product
        # Row i, column j: the squared length of gradient i over what term j reaches too.
        squares += torch.outer(product.diagonal(), reached)
    cosines: Tensor = products / (squares * squares.T).sqrt()
    return cosines.clamp(-1, 1)


def _gradient(term: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
    if not (term.requires_grad and parameters):
        return [None] * len(parameters)
    try:
        return torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise ModelError(
            got=f"a network that cannot be differentiated term by term ({str(error).splitlines()[0]})",
            needed="a graph that can be gone through more than once",
            fix="leave the model uncompiled and its checkpointing non-reentrant",
        ) from error
