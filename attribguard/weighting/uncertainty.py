"""Weights from how uncertain each task is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from attribguard.weighting.base import Weighting

__all__ = ["Uncertainty"]

# A weight grows to at most exp(14), a million times the fixed one: a term that is 0 step after step, because nobody is
# annotated, would otherwise drive it to infinity.
_LOWEST = -14.0


class Uncertainty(Weighting):
    r"""Weigh each term by its homoscedastic uncertainty: a log-variance :math:`s_i` a term is learned, from 0.

    .. math:: \mathcal{L} = \sum_i w_i e^{-s_i} L_i + \tfrac{1}{2} s_i

    Kendall, Gal and Cipolla (2018), "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics", Eq. 10, with :math:`s = \log \sigma^2` as they propose. For constant terms the optimum is where the
    effective weight :math:`w_i e^{-s_i}` is :math:`1 / (2 L_i)`.

    Departures:

    - All terms have the form that the paper derives for classification, :math:`\sigma^{-2} L + \log \sigma`. For
      regression it is :math:`\tfrac{1}{2} \sigma^{-2} L + \log \sigma`: the same but for a constant, with :math:`s`
      shifted by :math:`\log 2`. A penalty has no likelihood at all; for it this is a way to find its scale.
    - The fixed weights :math:`w_i` are not in the paper. Training starts at them, but they too only shift :math:`s`,
      by :math:`\log w_i`: the optimum does not depend on them. They serve as units of measurement; to hold a ratio of
      two terms, use no weighting.
    - A term whose fixed weight is 0 has no part in the loss, and its :math:`s` stays.
    - Below :math:`s = -14` the gradient of :math:`s/2` is dropped, so that no weight grows without bound.

    The terms have to be 0 or more; the loss may become negative. Weight decay draws :math:`s` to 0, that is to the
    fixed weights: a parameter group without decay avoids it. Evaluation uses the same formula. Compiles.

    Example:
        >>> weighting = Uncertainty()
        >>> weighting.setup(["criterion", "actdiff"], torch.empty(0))
        >>> terms = {"criterion": torch.tensor(0.7), "actdiff": torch.tensor(0.1)}
        >>> loss, in_force = weighting(terms, {"criterion": 1.0, "actdiff": 10.0})
        >>> loss.item(), in_force["actdiff"].item()
        (1.7..., 10.0)
    """

    def add_term(self, name: str) -> None:
        """One log-variance."""
        self.register_parameter(f"log_variance_{name}", nn.Parameter(torch.zeros(())))

    def forward(
        self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shared: Sequence[Tensor] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weigh the terms and add them up, as :meth:`Weighting.forward` says."""
        terms = self.checked(terms, weights)
        parts, in_force = [], {}
        for name in self.names:
            log_variance: Tensor = getattr(self, f"log_variance_{name}")
            if name not in terms or weights[name] == 0:
                # In the graph all the same: DistributedDataParallel waits for every parameter's gradient.
                parts.append(0 * log_variance)
            else:
                parts.append(log_variance.clamp(min=_LOWEST) / 2)
            if name in terms:
                weight = weights[name] * torch.exp(-log_variance)
                in_force[name] = weight.detach()
                parts.append(weight * terms[name])
        return torch.stack(parts).sum(), in_force
