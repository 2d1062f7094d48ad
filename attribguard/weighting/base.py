"""What a weighting is: it makes a loss of a step's terms and their fixed weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from attribguard.errors import RangeError

__all__ = ["Weighting"]


class Weighting(nn.Module, ABC):
    """Weights that adapt in training, over all terms of a guarded step: criterion, heads and penalties alike.

    ``wrap`` takes one and sets it up with the names of the terms. What it learns is among ``guard.parameters()``, for
    the user's own optimizer to step, and in the guard's state dict, by the terms' names. Subclass it and write
    :meth:`add_term` and :meth:`forward`.

    Attributes:
        needs_shared: whether it differentiates the terms with respect to shared parameters.
        names: the terms; none before the set-up.
    """

    needs_shared: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()

    def setup(self, names: Sequence[str], like: Tensor) -> None:
        """Create what is learned for each term; ``wrap`` calls this. A second time it keeps what was learned.

        Args:
            names: of all terms.
            like: a tensor on the device on which the terms will be.

        Raises:
            RangeError: if it was set up for other terms, or a name does not fit into a state dict.
        """
        if self.names and set(names) != set(self.names):
            raise RangeError(
                got=f"a weighting of {sorted(self.names)} for the terms {sorted(names)}",
                needed="the same terms, whose weights it has learned",
                fix="make a new one",
            )
        dotted = [name for name in names if "." in name]
        if dotted:
            raise RangeError(
                got=f"the names {dotted}", needed="names without dots", fix="pass name=: they go into state dicts"
            )
        if not self.names:
            self.names = tuple(names)
            for name in names:
                self.add_term(name)
        self.to(like.device)

    @abstractmethod
    def add_term(self, name: str) -> None:
        """Register the parameters and buffers of one term, float32."""

    @abstractmethod
    def forward(
        self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shared: Sequence[Tensor] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weigh the terms and add them up.

        Args:
            terms: name to unweighted scalar, with its graph.
            weights: name to fixed weight, 0 or more; may change between steps. 0 takes a term out of the loss.
            shared: the parameters to differentiate with respect to, where ``needs_shared`` says so.

        Returns:
            The loss, a scalar with its graph, and name to the weight that was in force, detached scalars.

        Raises:
            RangeError: if a term is unknown or has no weight.
        """

    def checked(self, terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """The terms, at least float32, if they are known.

        Args:
            terms: as in :meth:`forward`.
            weights: as in :meth:`forward`.

        Raises:
            RangeError: if a term is unknown or has no weight.
        """
        unknown = [name for name in terms if name not in self.names or name not in weights]
        if unknown:
            raise RangeError(
                got=f"the terms {unknown}",
                needed=f"terms out of {list(self.names)}, each with a fixed weight",
                fix="pass the weighting to wrap, which sets it up with all terms",
            )
        return {name: term.to(torch.promote_types(term.dtype, torch.float32)) for name, term in terms.items()}
