"""What one penalty sees of a step."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from attribguard.batch import Batch
from attribguard.corrupted_pass import Compared, Corrupted
from attribguard.corruption import Corruption
from attribguard.errors import ModelError
from attribguard.functional.scores import Score
from attribguard.layout import Features
from attribguard.step import Step

__all__ = ["Trace"]


class Trace:
    """What one penalty sees of a step.

    Args:
        step: the shared computations.
        name: the penalty's.
        layers: the penalty's own places.
        corruption: the one it declares.
        corrupted: which of the step's corrupted passes that is.
        differentiated: whether it reads the gradient with respect to its layer.
        compares: whether it has a method ``compare``.
        later: the places that other penalties will read after it.
    """

    def __init__(
        self,
        step: Step,
        name: str,
        layers: tuple[str, ...],
        corruption: Corruption | None,
        corrupted: int,
        differentiated: bool,
        compares: bool,
        later: Collection[str],
    ) -> None:
        self._step, self._name, self._layers, self._differentiated = step, name, layers, differentiated
        self._corruption, self._corrupted = corruption, corrupted
        self._compares, self._later = compares, later

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
        self._check_held()
        return self._step.features.only(self._layers)

    def corrupted(self, corruption: Corruption) -> Corrupted:
        """The pass over the corrupted images, run once a step for each corruption that a penalty declares.

        Dropout draws what it drew in the main pass; BatchNorm normalises by the corrupted batch and leaves its running
        statistics alone. Features of rows that are not annotated equal the clean ones.

        Args:
            corruption: the penalty's own ``corruption``.

        Raises:
            ModelError: if the penalty does not declare it, or declares to compare.
        """
        self._check_declared(corruption)
        if self._compares:
            raise ModelError(
                got="a penalty that reads corrupted features and has a method `compare`",
                needed="one of the two: what was compared is not kept",
                fix="call trace.compared(), or leave `compare` at None",
            )
        return self._step.corrupted(self._corrupted, self._layers, self._later)

    def compared(self) -> Compared:
        """What the penalty's method ``compare`` made of both passes at each of its layers.

        Cheaper than :meth:`corrupted`: it is called while the corrupted pass runs, and neither side is kept. Where few
        of the rows are annotated and the network treats each image alone, only these are shown to the network and
        compared; elsewhere all. Rows that are left out count as 0:

        .. code-block:: python

            rows, found = trace.compared()
            values = trace.logits.new_zeros(len(trace.batch.x))
            values[rows] = torch.stack([*found.values()]).mean(0)

        The penalty's own features are gone afterwards, as far as no other reads them: read :attr:`features` before.

        Raises:
            ModelError: if the penalty declares no corruption, or has no such method.
        """
        if self._corruption is None or not self._compares:
            raise ModelError(
                got="a penalty that compares two passes without saying how",
                needed="an attribute `corruption`, and a method compare(clean, corrupted)",
                fix="set both before the guard's first step",
            )
        return self._step.compared(self._corrupted, self._name, self._later)

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
        self._check_held()
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

    def _check_held(self) -> None:
        if not all(layer in self._step.features for layer in self._layers):
            raise ModelError(
                got="a penalty that reads its layers after it has compared them, when they are not held any more",
                needed="trace.features before trace.compared()",
                fix="read them first, or let `compare` return what is needed",
            )

    def _check_declared(self, corruption: Corruption) -> None:
        if corruption is not self._corruption and corruption != self._corruption:
            raise ModelError(
                got=f"a penalty that reads {corruption} and declares {self._corruption}",
                needed="the corruption that it declares",
                fix="set its attribute `corruption` before the guard's first step",
            )
