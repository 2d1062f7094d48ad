"""ActDiff: the network should see the same with and without the context."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from attribguard.corruption import Corruption, CorruptionMode
from attribguard.errors import LayerError, check_choice
from attribguard.functional.actdiff import NORMS, ActDiffNorm, layer_difference, mean_length
from attribguard.layers import AUTO
from attribguard.penalties.base import Penalty
from attribguard.trace import Trace

__all__ = ["ActDiff"]


class ActDiff(Penalty):
    r"""Distance between the activations for an image and for the same image with its outside corrupted.

    .. math::
        \mathcal{L}_\mathrm{act} = \frac{1}{L} \sum_{l=1}^{L} \| o_l(\tilde x) - o_l(x) \|

    Viviano et al., Eq. 1. Departures: the default norm is free of the layer's size (``norm="l2"`` is the equation,
    ``"rows"`` the published code); the value is per sample; rows without annotation are 0 instead of being compared
    under a mask of ones; activations are taken before the activation function even where that works in place (the
    published code's are overwritten by it); BatchNorm's running statistics move by the clean pass alone. As in the
    paper, gradients flow through both passes: detaching either undoes the method.

    Costs one more forward and backward pass, up to the last of its layers.

    Args:
        weight: the paper's :math:`\lambda_\mathrm{act}`, 0 or more; 10 there.
        layers: ``"auto"`` compares what enters the network's activations (ReLU, GELU, SiLU, ...; not the gates sigmoid
            and softmax, and never the classifier's output); otherwise names or glob patterns, see :class:`Penalty`.
        norm: ``"rms"``, ``"l2"`` or ``"rows"``, see :func:`attribguard.functional.actdiff`.
        corruption: ``"shuffle"``, ``"zero"``, ``"mean"``, ``"blur"`` or a callable, see :func:`attribguard.corrupt`.
        dilate: pixels by which the mask grows first, so that the region keeps some context.
        name: the term's name, ``"actdiff"`` by default.

    Raises:
        RangeError: if an argument is out of its range.

    Example:
        >>> ActDiff(weight=10.0, dilate=2)
        ActDiff(weight=10.0, name='actdiff', layers='auto', norm='rms', corruption='shuffle', dilate=2)
    """

    def __init__(
        self,
        weight: float,
        *,
        layers: str | Sequence[str] = AUTO,
        norm: ActDiffNorm = "rms",
        corruption: CorruptionMode = "shuffle",
        dilate: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, layers=layers, name=name)
        check_choice("norm", norm, NORMS)
        if not self.layers:
            raise LayerError(got="no layers", needed='"auto", or at least one layer', fix="leave `layers` out")
        self.norm: ActDiffNorm = norm
        self.corruption: Corruption = Corruption(corruption, dilate)

    def forward(self, trace: Trace) -> Tensor:
        """The distance of each sample, (N,)."""
        n = len(trace.batch.x)
        for name, features in trace.features.raw.items():
            if len(features) % n:
                raise LayerError(
                    got=f"features of shape {tuple(features.shape)} at {name!r} for {n} images",
                    needed="one entry, or equally many, for each image along the first axis",
                    fix="name another layer",
                )
        rows, differences = trace.compared()
        distances = mean_length([*differences.values()], n if isinstance(rows, slice) else len(rows), self.norm)
        values = distances.new_zeros(n)
        values[rows] = distances
        return values

    def compare(self, clean: Tensor, corrupted: Tensor) -> Tensor:
        """What is kept of one layer, (M,) or (M, R)."""
        return layer_difference(clean, corrupted, self.norm)

    def extra_repr(self) -> str:
        """The settings."""
        layers = f"layers={self.layers!r}, norm={self.norm!r}"
        return f"{super().extra_repr()}, {layers}, corruption={self.corruption.mode!r}, dilate={self.corruption.dilate}"
