"""GradMask: the score should not depend on what lies outside the mask."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from attribguard.errors import RangeError, check_choice
from attribguard.functional.checks import is_whole
from attribguard.functional.gradmask import GRADMASK_NORMS, GradMaskNorm, gradmask
from attribguard.functional.scores import Score, as_matrix, contrast
from attribguard.masks import check_pixels, dilate
from attribguard.penalties.base import Penalty
from attribguard.trace import Trace

__all__ = ["GradMask"]


class _NonHealthy:
    """The size of every logit but the healthy class's."""

    def __init__(self, healthy: int) -> None:
        self._healthy = healthy

    def __call__(self, logits: Tensor, target: Any) -> Tensor:
        z = as_matrix(logits)
        if z.shape[1] == 1:
            return z.abs().squeeze(1)
        if self._healthy >= z.shape[1]:
            raise RangeError(
                got=f"healthy={self._healthy} for {z.shape[1]} outputs",
                needed="the index of the healthy class",
                fix=f"choose one of 0 to {z.shape[1] - 1}",
            )
        keep = torch.arange(z.shape[1], device=z.device) != self._healthy
        return (z.abs() * keep).sum(1)


class GradMask(Penalty):
    r"""Norm of the input gradient outside the mask.

    .. math::
        \mathcal{L}_\mathrm{grad} = \left\| \frac{\partial |\hat y_1 - \hat y_0|}{\partial x} \cdot (1 - m) \right\|_2

    Viviano et al., Eq. 2, after Simpson et al. The published code sums absolute values over the batch and always takes
    the first two outputs; here the norm is per sample, and with more than two classes the contrast is the true class's
    logit against the best other. See :func:`attribguard.functional.gradmask`.

    Costs a second backward pass through the whole network. It sees first-order influence alone: where the network is
    saturated the gradient vanishes, and a shortcut that moves the score in one large step leaves no trace.

    Args:
        weight: 0 or more; the paper's :math:`\lambda_\mathrm{grad}` is 10.
        score: ``"contrast"``, or ``"nonhealthy"``: the sum of the absolute logits of all classes but ``healthy``, which
            leaves the evidence for the healthy class free.
        healthy: the healthy class's index.
        norm: ``"l2"``, ``"l1"`` or ``"squared"``.
        dilate: pixels by which the mask grows first, so that the region keeps some context.
        name: the term's name, ``"gradmask"`` by default.

    Raises:
        RangeError: if an argument is out of its range.

    Example:
        >>> GradMask(0.1, norm="squared")
        GradMask(weight=0.1, name='gradmask')
    """

    needs_input_gradient = True

    def __init__(
        self,
        weight: float,
        *,
        score: Literal["contrast", "nonhealthy"] = "contrast",
        healthy: int = 0,
        norm: GradMaskNorm = "l2",
        dilate: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name=name)
        check_choice("score", score, ("contrast", "nonhealthy"))
        check_choice("norm", norm, GRADMASK_NORMS)
        if not is_whole(healthy, 0):
            raise RangeError(got=f"healthy={healthy!r}", needed="a class index of 0 or more", fix="give the class")
        self.score: Score = contrast if score == "contrast" else _NonHealthy(healthy)
        self.norm: GradMaskNorm = norm
        self.dilate = check_pixels(dilate)

    def forward(self, trace: Trace) -> Tensor:
        """The norm of each sample, (N,)."""
        return gradmask(trace.input_gradient(self.score), dilate(trace.batch.mask, self.dilate), self.norm)
