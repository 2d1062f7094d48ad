"""Weights that let all tasks train at similar rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from attribguard.compiling import refusal
from attribguard.errors import ModelError
from attribguard.functional.checks import check_number
from attribguard.processes import everywhere, in_process_group
from attribguard.second_order import SCALES
from attribguard.weighting.base import Weighting

__all__ = ["GradNorm"]

# An optimizer's step may overshoot 0; from here a weight finds its way back.
_LOWEST = 1e-6


_refuse_compiling = refusal(
    got="a compiled guard with GradNorm",
    needed="a graph without a backward pass inside, which torch.compile cannot follow",
    fix="leave the guard uncompiled, or use weighting=Uncertainty()",
)


class GradNorm(Weighting):
    r"""Balance the gradients that the terms send into shared parameters: each learns a factor :math:`g_i`, from 1.

    .. math::
        \mathcal{L} = \sum_i w_i g_i L_i, \qquad
        \mathcal{L}_\mathrm{grad} = \sum_i \left| G_i - \bar{G}\, r_i^\alpha \right|, \qquad
        G_i = \| \nabla_W\, w_i g_i L_i \|_2, \qquad
        r_i = \tilde{L}_i / \overline{\tilde{L}}, \qquad \tilde{L}_i = L_i / L_i(0)

    Chen et al. (2018), "GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks",
    Eqs. 1 and 2 and Algorithm 1. Bars are means over the terms, :math:`W` are the shared parameters, and the target
    :math:`\bar{G} r_i^\alpha` is held constant. The loss's value is the weighted sum alone; ``backward`` gives the
    model's parameters the gradient of that sum, and :math:`g_i` that of :math:`\mathcal{L}_\mathrm{grad}`.

    Departures:

    - The paper's losses are the terms times their fixed weights :math:`w_i`, at which training starts. The balance does
      not depend on them; :math:`L_i(0)` is that of the bare term, so that a warm-up does not look like progress.
    - The user's one optimizer steps :math:`g`, which is brought back to positive values with a mean of 1 at the start
      of the next training step instead of at the end of this one.
    - A term that sends no gradient into :math:`W` in a step (weight 0, nobody annotated, not connected), or whose
      value is not positive before :math:`L_i(0)` is known, is left out of that step's sums and means; until its first
      balanced step, whose value becomes :math:`L_i(0)`, its factor is exactly 1. The factors' sum is always the number
      of terms.
    - In several processes, norms and values are those of the joined batch. All processes of the default group have to
      take the same steps.

    Costs one more backward pass a term in each training step, from the loss down to :math:`W`, and memory for one
    gradient of :math:`W` a term. The gradient of :math:`g_i` is as large as that of its bare term: under plain SGD give
    the weighting a parameter group with a small learning rate (Adam does not mind), and clip the gradients of
    ``guard.model`` alone. Where a term starts near 0 (RRR in an untrained network does) its rate means nothing, and
    ``alpha=0``, which balances the norms alone, is the better choice. In evaluation and under ``no_grad`` the factors
    are used as they are. Does not compile.

    Args:
        alpha: how strongly slow terms are favoured, 0 or more; 1.5 and 0.12 in the paper.

    Raises:
        TypeMismatchError: if alpha is not a number.
        RangeError: if it is negative or not finite.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> weighting = GradNorm(alpha=0.0)
        >>> weighting.setup(["criterion", "actdiff"], layer.weight)
        >>> out = layer(torch.ones(1, 2)).sum()
        >>> terms = {"criterion": out.square(), "actdiff": 100 * out.square()}
        >>> loss, in_force = weighting(terms, {"criterion": 1.0, "actdiff": 1.0}, [layer.weight])
        >>> loss.backward()
        >>> weighting.factor_criterion.grad < 0 < weighting.factor_actdiff.grad
        tensor(True)
    """

    needs_shared = True

    def __init__(self, alpha: float = 1.5) -> None:
        super().__init__()
        check_number("alpha", alpha, "0 or more", lambda value: value >= 0)
        self.alpha = alpha

    def add_term(self, name: str) -> None:
        """A factor, and the first value: nan for not yet known."""
        self.register_parameter(f"factor_{name}", nn.Parameter(torch.ones(())))
        self.register_buffer(f"start_{name}", torch.tensor(torch.nan))

    def forward(
        self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shared: Sequence[Tensor] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weigh the terms and add them up, as :meth:`Weighting.forward` says.

        Raises:
            ModelError: in a training step that is compiled, or that cannot be differentiated with respect to
                ``shared``.
        """
        terms = self.checked(terms, weights)
        factors = self._normalised()
        in_force = {name: weights[name] * g for name, g in zip(self.names, factors, strict=True) if name in terms}
        loss = torch.stack([in_force[name] * term for name, term in terms.items()]).sum()
        if self.training and torch.is_grad_enabled():
            losses, norms = self._measured(terms, weights, shared)
            self._write("factor", factors)
            imbalance = self._imbalance(losses, norms)
            loss = loss + (imbalance - imbalance.detach())
        return loss, in_force

    def extra_repr(self) -> str:
        """The setting."""
        return f"alpha={self.alpha}"

    def _stacked(self, what: str) -> Tensor:
        return torch.stack([getattr(self, f"{what}_{name}") for name in self.names])

    def _write(self, what: str, values: Tensor) -> None:
        with torch.no_grad():
            for name, value in zip(self.names, values, strict=True):
                getattr(self, f"{what}_{name}").copy_(value)

    def _normalised(self) -> Tensor:
        """The factors, positive, with a mean of 1 over the terms that were ever balanced; 1 for the others."""
        factors = self._stacked("factor").detach().clamp(min=_LOWEST)
        balanced = ~self._stacked("start").isnan()
        return torch.where(balanced, factors * balanced.sum() / (factors * balanced).sum(), 1)

    def _measured(
        self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shared: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The terms' values, and the norms of their gradients with factors of 1: (T,) each, over all processes."""
        if torch.compiler.is_compiling():
            _refuse_compiling()
        shared = [parameter for parameter in shared if parameter.requires_grad]
        active = [name for name in self.names if name in terms and weights[name] > 0]
        rows = {name: _value_and_gradient(terms[name], weights[name], shared) for name in active}
        if active and not any(row is not None for row in rows.values()):
            raise ModelError(
                got="terms of which none depends on the shared parameters",
                needed="trainable parameters that the terms have in common, for GradNorm",
                fix="unfreeze that layer, or use weighting=Uncertainty()",
            )
        nothing = self._stacked("start").new_zeros(1 + sum(parameter.numel() for parameter in shared))
        measured = torch.stack([nothing if (row := rows.get(n)) is None else row.to(nothing) for n in self.names])
        if in_process_group():
            dist.all_reduce(measured)
            measured /= dist.get_world_size()
        return measured[:, 0], torch.linalg.vector_norm(measured[:, 1:], dim=1)

    def _imbalance(self, losses: Tensor, norms: Tensor) -> Tensor:
        """The paper's L_grad, a function of the factors alone."""
        start = self._stacked("start")
        new = start.isnan()
        balanced = (norms > 0) & norms.isfinite() & losses.isfinite() & ((losses > 0) | ~new)
        start = torch.where(balanced & new, losses, start)
        self._write("start", start)
        count = balanced.sum()
        # Bounds, so that neither a tiny first value nor losses of 0 can make a nan.
        progress = torch.where(balanced, losses / start, 0).clamp(0, 1e30)
        rates = progress / (progress.sum() / count).clamp(min=1e-30)
        # The norm of a gradient times a positive factor: no second derivative is needed.
        sizes = self._stacked("factor") * torch.where(balanced, norms, 0)
        targets = sizes.detach().sum() / count * rates**self.alpha
        return torch.where(balanced, sizes - targets, 0).abs().sum()


def _value_and_gradient(term: Tensor, weight: float, shared: Sequence[Tensor]) -> Tensor | None:
    """A term's value and its weighted gradient, flat: (1 + P,); ``None`` if it does not depend on the parameters."""
    if not (term.requires_grad and shared):
        return None
    for scale in SCALES:
        try:
            # Under autocast a backward pass would round float32 layers as well.
            with torch.autocast(term.device.type, enabled=False):
                parts = torch.autograd.grad(term * scale, shared, retain_graph=True, allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ModelError(
                got=f"a network that GradNorm cannot differentiate term by term ({str(error).splitlines()[0]})",
                needed="a graph that can be gone through more than once",
                fix="leave the model uncompiled and its checkpointing non-reentrant, or use weighting=Uncertainty()",
            ) from error
        if all(part is None for part in parts):
            return None
        filled = [torch.zeros_like(p) if part is None else part for part, p in zip(parts, shared, strict=True)]
        gradient = torch.cat([part.flatten().to(term.dtype) for part in filled]) / scale
        # One scale for all: a backward pass through a SyncBatchNorm waits for those of the others.
        if scale == SCALES[-1] or everywhere(gradient.isfinite().all()):
            break
    return torch.cat([term.detach().view(1), weight * gradient])
