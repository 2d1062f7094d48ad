"""Right for the Right Reasons: no input gradient where the network must not look."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from attribguard.errors import check_choice
from attribguard.functional.rrr import PIXELS, Pixels, rrr
from attribguard.functional.scores import Score, log_prob, log_probs, projection
from attribguard.masks import check_pixels, dilate
from attribguard.penalties.base import Penalty
from attribguard.trace import Trace

__all__ = ["RRR"]


class RRR(Penalty):
    r"""Squared gradient of the log-probabilities outside the mask.

    .. math::
        \mathcal{L}_\mathrm{RRR} = \sum_{c, p} \Big( (1 - m_p) \, \frac{\partial}{\partial x_{cp}}
        \sum_k \log \hat p_k \Big)^2

    Ross et al. Departures: per sample, where their code sums over the batch; with one output or several labels, where
    softmax does not apply, both probabilities of each output count, so that the penalty is not silently 0. See
    :func:`attribguard.functional.rrr`.

    Costs a second backward pass through the whole network. The gradient of ``"log_probs"`` vanishes near uniform
    predictions, where the penalty is blind; ``"projection"`` is not: it sees every way in which a pixel moves any
    logit.

    Args:
        weight: 0 or more.
        score: ``"log_probs"``: the sum over all classes; ``"target"``: the true class's log-probability alone;
            ``"projection"``: the logits times a fresh normal vector for each sample and step.
        pixels: ``"sum"`` over pixels and channels, or ``"mean"``, which frees the weight from the image's size.
        dilate: pixels by which the mask grows first, so that the region keeps some context.
        name: the term's name, ``"rrr"`` by default.

    Raises:
        RangeError: if an argument is out of its range.

    Example:
        >>> RRR(10.0)
        RRR(weight=10.0, name='rrr')
    """

    needs_input_gradient = True

    def __init__(
        self,
        weight: float,
        *,
        score: Literal["log_probs", "target", "projection"] = "log_probs",
        pixels: Pixels = "sum",
        dilate: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, name=name)
        scores: dict[str, Score] = {"log_probs": log_probs, "target": log_prob, "projection": projection}
        check_choice("score", score, scores)
        check_choice("pixels", pixels, PIXELS)
        self.score, self.pixels = scores[score], pixels
        self.dilate = check_pixels(dilate)

    def forward(self, trace: Trace) -> Tensor:
        """The penalty of each sample, (N,)."""
        return rrr(trace.input_gradient(self.score), dilate(trace.batch.mask, self.dilate), self.pixels)
