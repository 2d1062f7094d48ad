"""Penalise any attribution outside the mask, with four to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attribguard.errors import ModelError, RangeError, ShapeError, TypeMismatchError, check_choice
from attribguard.functional.rrr import PIXELS, Pixels, rrr
from attribguard.functional.scores import Score, named_score
from attribguard.masks import check_pixels, dilate
from attribguard.penalties.base import Penalty
from attribguard.trace import Trace

__all__ = ["AttributionPenalty", "ExpectedGradients", "GradientTimesInput", "InputGradient", "IntegratedGradients"]

Attribution = Callable[[Trace], Tensor]


class InputGradient:
    """The gradient of a score with respect to the images, summed over the channels.

    Args:
        score: as in :meth:`attribguard.Trace.input_gradient`.
    """

    needs_input_gradient = True

    def __init__(self, score: str | Score = "target") -> None:
        self.score = named_score(score)

    def __call__(self, trace: Trace) -> Tensor:
        """(N, H, W), signed."""
        return trace.input_gradient(self.score).sum(1)


class GradientTimesInput(InputGradient):
    """The input gradient times the image, summed over the channels."""

    def __call__(self, trace: Trace) -> Tensor:
        """(N, H, W), signed."""
        return (trace.input_gradient(self.score) * trace.batch.x).sum(1)


class IntegratedGradients(InputGradient):
    r"""Integrated gradients in a few steps, differentiable.

    .. math::
        \mathrm{IG}(x) = (x - b) \cdot \frac{1}{S} \sum_{s=1}^{S}
        \frac{\partial f}{\partial x}\Big(b + \frac{s - 1/2}{S} (x - b)\Big)

    Sundararajan et al., by the midpoint rule. Each step is one more forward and backward pass.

    Args:
        steps: S, 1 or more.
        baseline: the value of every pixel of b.
        score: f, as in :meth:`attribguard.Trace.input_gradient`.

    Raises:
        RangeError: if there is no step.
    """

    def __init__(self, steps: int = 4, baseline: float = 0.0, score: str | Score = "target") -> None:
        super().__init__(score)
        if steps < 1:
            raise RangeError(got=f"steps={steps}", needed="1 or more", fix="4 is a start")
        self.steps, self.baseline = steps, baseline

    def __call__(self, trace: Trace) -> Tensor:
        """(N, H, W), signed."""
        x = trace.batch.x
        baseline = torch.full_like(x, self.baseline)
        shares = [(step + 0.5) / self.steps for step in range(self.steps)]
        return sum((self._part(trace, x, baseline, share) for share in shares), torch.zeros_like(x[:, 0])) / self.steps

    def _part(self, trace: Trace, x: Tensor, baseline: Tensor, share: float | Tensor) -> Tensor:
        between = (baseline + share * (x - baseline)).detach().requires_grad_()
        gradient = trace.gradient(self.score(trace.forward(between), trace.batch.target), between)
        return (gradient * (x - baseline)).sum(1)


class ExpectedGradients(IntegratedGradients):
    """Integrated gradients with other images of the batch as baselines, each step with another, at a random place.

    Erion et al. Draws come from the global random state.

    Args:
        steps: number of draws, 1 or more.
        score: as in :meth:`attribguard.Trace.input_gradient`.
    """

    def __init__(self, steps: int = 4, score: str | Score = "target") -> None:
        super().__init__(steps, score=score)

    def __call__(self, trace: Trace) -> Tensor:
        """(N, H, W), signed."""
        x, total = trace.batch.x, torch.zeros_like(trace.batch.x[:, 0])
        for _ in range(self.steps):
            baseline = x[torch.randperm(len(x), device=x.device)].detach()
            share = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype)
            total = total + self._part(trace, x, baseline, share)
        return total / self.steps


class AttributionPenalty(Penalty):
    r"""Squared attribution outside the mask, for any differentiable attribution.

    .. math::
        \mathcal{L} = \sum_p \big( (1 - m_p) \, a_p(x) \big)^2

    The form of Ross et al. with another map. An attribution is a callable ``attribution(trace) -> (N, H, W)`` with a
    graph; what it needs it declares as a penalty does, by attributes ``needs_input_gradient`` or ``corruption``.
    (:class:`InputGradient`, :class:`GradientTimesInput`, :class:`IntegratedGradients` and :class:`ExpectedGradients`
    come along. Attributions of captum carry no graph, or a wrong one: they are for measuring.)

    Args:
        weight: 0 or more.
        attribution: the map.
        layers: the layers it reads, see :class:`Penalty`.
        pixels: ``"sum"``, or ``"mean"``, which frees the weight from the image's size.
        dilate: pixels by which the mask grows first.
        name: the term's name, ``"attributionpenalty"`` by default.

    Raises:
        TypeMismatchError: if the attribution is not callable.
        RangeError: if an argument is out of its range.

    Example:
        >>> AttributionPenalty(1.0, IntegratedGradients(steps=3)).needs_input_gradient
        True
    """

    def __init__(
        self,
        weight: float,
        attribution: Attribution,
        *,
        layers: str | Sequence[str] = (),
        pixels: Pixels = "sum",
        dilate: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, layers=layers, name=name)
        if not callable(attribution) or isinstance(attribution, type):
            raise TypeMismatchError(
                got=f"attribution={attribution!r}",
                needed="a callable object",
                fix="make it, as in IntegratedGradients()",
            )
        check_choice("pixels", pixels, PIXELS)
        self.attribution, self.pixels = attribution, pixels
        self.needs_input_gradient = getattr(attribution, "needs_input_gradient", False)
        self.corruption = getattr(attribution, "corruption", None)
        self.dilate = check_pixels(dilate)

    def forward(self, trace: Trace) -> Tensor:
        """The penalty of each sample, (N,)."""
        attribution, x = self.attribution(trace), trace.batch.x
        if attribution.shape != (len(x), *x.shape[2:]):
            raise ShapeError(
                got=f"an attribution of shape {tuple(attribution.shape)}",
                needed=f"{(len(x), *x.shape[2:])}, one map an image of the image's size",
                fix="sum over the channels, or interpolate the map",
            )
        if torch.is_grad_enabled() and not attribution.requires_grad:
            raise ModelError(
                got="an attribution without a graph, which nothing can be learned from",
                needed="a map that depends on the parameters by autograd",
                fix="use create_graph=True inside, and do not detach",
            )
        return rrr(attribution[:, None], dilate(trace.batch.mask, self.dilate), self.pixels)
