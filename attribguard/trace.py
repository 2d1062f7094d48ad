"""What one penalty sees of a step."""

from __future__ import annotations

from torch import Tensor

from attribguard.batch import Batch
from attribguard.corruption import Corruption
from attribguard.errors import ModelError
from attribguard.functional.scores import Score
from attribguard.layout import Features
from attribguard.step import Compared, Corrupted, Step

__all__ = ["Trace"]


class Trace:
    """What one penalty sees of a step.

    Args:
        step: the shared computations.
        layers: the penalty's own places.
        corruption: the one it declares.
        corrupted: which of the step's corrupted passes that is.
        differentiated: whether it reads the gradient with respect to its layer.
    """

    def __init__(
        self, step: Step, layers: tuple[str, ...], corruption: Corruption | None, corrupted: int, differentiated: bool
    ) -> None:
        self._step, self._layers, self._differentiated = step, layers, differentiated
        self._corruption, self._corrupted = corruption, corrupted

    @property
    def batch(self) -> Batch:
        """The checked batch."""
        return self._step.batch

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the penalty's layers in this network, in the order in which they run."""
        return self._layers

    @property
    def logits(self) -> Tensor:
        """(N, K), as the model gave them, with their graph."""
        return self._step.logits

    @property
    def features(self) -> Features:
        """The penalty's layers by name, each (N, C, h, w) with its graph; ``.raw`` has them in the network's layout."""
        return self._step.features.only(self._layers)

    def corrupted(self, corruption: Corruption) -> Corrupted:
        """The pass over the corrupted images, run once a step for each corruption that a penalty declares.

        Dropout draws what it drew in the main pass; BatchNorm normalises by the corrupted batch and leaves its running
        statistics alone. Features of rows that are not annotated equal the clean ones.

        Args:
            corruption: the penalty's own ``corruption``.

        Raises:
            ModelError: if the penalty does not declare it.
        """
        self._check_declared(corruption)
        return self._step.corrupted(self._corrupted, self._layers)

    def compared(self, corruption: Corruption) -> Compared:
        """The penalty's layers in both passes, of the rows alone in which they can differ.

        Where a few of the rows are annotated and the network treats each image alone, these are the annotated ones,
        and nothing is copied or compared for the others; elsewhere they are all. Rows that are left out count as 0:

        .. code-block:: python

            rows, clean, corrupted = trace.compared(self.corruption)
            values = trace.logits.new_zeros(len(trace.batch.x))
            values[rows] = distance(clean, corrupted)

        Args:
            corruption: the penalty's own ``corruption``.

        Raises:
            ModelError: if the penalty does not declare it.
        """
        self._check_declared(corruption)
        return self._step.compared(self._corrupted, self._layers)

    def input_gradient(self, score: str | Score) -> Tensor:
        """Differentiate a score of the logits with respect to the images.

        Args:
            score: ``"target"``, ``"contrast"``, ``"log_prob"``, ``"log_probs"`` or ``"projection"``, see
                :mod:`attribguard.functional.scores`, or a hashable callable ``(logits, target) -> (N,)``. Penalties
                that use one score share one gradient.

        Returns:
            (N, C, H, W), with a graph of its own, through which one can train.

        Raises:
            ModelError: if the penalty does not declare ``needs_input_gradient``.
        """
        return self._step.input_gradient(score)

    def layer_gradient(self, weights: Tensor) -> Tensor:
        """Differentiate weighted logits with respect to the penalty's one layer.

        Where the logits are linear in that layer (global pooling or flattening and one linear layer) the gradient is
        taken in closed form and no backward pass runs.

        Args:
            weights: (N, K), the factor of each logit.

        Returns:
            (N, C, h, w), or (N, C, 1, 1) where it is the same at every place; it can be trained through.

        Raises:
            ModelError: if the penalty does not declare ``needs_layer_gradient`` and one layer.
        """
        if not self._differentiated or len(self._layers) != 1:
            raise ModelError(
                got="a penalty that reads a layer's gradient without saying so",
                needed="needs_layer_gradient = True and one layer",
                fix="set that attribute on the penalty, and name one layer",
            )
        return self._step.layer_gradient(self._layers[0], weights)

    def forward(self, x: Tensor) -> Tensor:
        """Run the model on other images, (N, C, H, W), as the main pass ran: (N, K) logits."""
        return self._step.forward(x)

    def gradient(self, scores: Tensor, inputs: Tensor) -> Tensor:
        """Differentiate scores of such a pass with respect to what went into it.

        Args:
            scores: any shape; their sum is differentiated.
            inputs: what they depend on by autograd, for instance the images that :meth:`forward` was given.

        Returns:
            The gradient in the shape of ``inputs``, at least float32 and safe from float16's underflow; it can be
            trained through.
        """
        return self._step.gradient(scores, inputs)

    def _check_declared(self, corruption: Corruption) -> None:
        if corruption is not self._corruption and corruption != self._corruption:
            raise ModelError(
                got=f"a penalty that reads {corruption} and declares {self._corruption}",
                needed="the corruption that it declares",
                fix="set its attribute `corruption` before the guard's first step",
            )
