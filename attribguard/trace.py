"""One batch on its way through a guarded step: the passes over it, each run once, and what penalties see of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from attribguard.corruption import Corruption
from attribguard.draws import Draws, EagerDraws, TracedDraws
from attribguard.errors import ModelError, ShapeError
from attribguard.functional.scores import Score, named_score
from attribguard.layout import Features
from attribguard.modes import ScratchBuffers
from attribguard.network import Network

__all__ = ["Batch", "Corrupted", "Step", "Trace"]


class Batch(NamedTuple):
    """A checked batch.

    Attributes:
        x: (N, C, H, W) images.
        target: what the criterion gets; (N,) class indices by default.
        mask: (N, 1, H, W) float, 1 = relevant. All ones where there is no annotation.
        annotated: (N,) bool: whose mask counts.
        segmentation: (N, H, W) class indices, or ``None``.
        segmented: (N,) bool: whose segmentation counts.
    """

    x: Tensor
    target: Any
    mask: Tensor
    annotated: Tensor
    segmentation: Tensor | None
    segmented: Tensor


class Corrupted(NamedTuple):
    """The pass over the corrupted images.

    Attributes:
        x: (N, C, H, W), the corrupted images.
        features: as :attr:`attribguard.Trace.features`.
    """

    x: Tensor
    features: Features


class Step:
    """Everything that is computed for one batch, each thing once, for all penalties.

    Args:
        network: the wrapped model.
        batch: the checked batch.
        layers: the places to record in the main pass.
        corruptions: the corrupted passes to run, each with the places to record there.

    Attributes:
        corrupted: what came of them, in their order.
    """

    def __init__(
        self,
        network: Network,
        batch: Batch,
        layers: tuple[str, ...],
        corruptions: Sequence[tuple[Corruption, tuple[str, ...]]],
    ) -> None:
        self.network, self.batch = network, batch
        self._draws: Draws = TracedDraws() if torch.compiler.is_compiling() else EagerDraws(batch.x.device)
        kind = batch.x.device.type
        self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        self._gradients: dict[Score, Tensor] = {}
        with self._draws.recorded():
            self.logits, self._clean = network.record(batch.x, layers)
        self.features = self._as_features(self._clean)
        self.corrupted = [self._corrupt(corruption, points) for corruption, points in corruptions]

    def input_gradient(self, score: str | Score) -> Tensor:
        """The gradient of the summed scores with respect to the images, (N, C, H, W), with its own graph."""
        function = named_score(score)
        if function not in self._gradients:
            if not self.batch.x.requires_grad:
                raise ModelError(
                    got="a penalty that reads an input gradient without saying so",
                    needed="needs_input_gradient = True",
                    fix="set that attribute on the penalty",
                )
            scores = function(self.logits, self.batch.target)
            if scores.shape != (len(self.batch.x),):
                raise ShapeError(
                    got=f"scores of shape {tuple(scores.shape)}",
                    needed=f"one score an image, ({len(self.batch.x)},)",
                    fix="let the score reduce the other axes",
                )
            (self._gradients[function],) = torch.autograd.grad(scores.sum(), self.batch.x, create_graph=True)
        return self._gradients[function]

    def forward(self, x: Tensor) -> Tensor:
        """A further pass: the same dropout, the caller's autocast, running statistics left alone."""
        kind, dtype, enabled = self._autocast
        ambient = torch.autocast(kind, dtype=dtype, enabled=enabled)
        with ambient, ScratchBuffers(self.network.model), self._draws.replayed():
            return self.network.logits(x)

    def _corrupt(self, corruption: Corruption, points: tuple[str, ...]) -> Corrupted:
        x = corruption(self.batch.x, self.batch.mask)
        rows = self._rows(points)
        if rows is not None and rows.numel() == 0:
            return Corrupted(x, self._as_features({point: self._clean[point] for point in points}))
        with ScratchBuffers(self.network.model), self._draws.replayed():
            tensors = self.network.record_only(x if rows is None else x[rows], points)
        if rows is not None:
            # The mask of a row that is not annotated is all ones: its corrupted image is the image, and its features
            # are the clean ones.
            tensors = {point: self._clean[point].index_copy(0, rows, t) for point, t in tensors.items()}
        return Corrupted(x, self._as_features(tensors))

    def _rows(self, points: tuple[str, ...]) -> Tensor | None:
        """The rows that the corrupted pass needs, or ``None`` for all of them."""
        # What runs must not depend on the data where a graph is compiled or where other processes wait for this one.
        if torch.compiler.is_compiling() or (dist.is_available() and dist.is_initialized()):
            return None
        rows = self.batch.annotated.nonzero().flatten()
        n = len(self.batch.x)
        if rows.numel() in (0, n):
            return rows if rows.numel() == 0 else None
        # A smaller batch would draw other dropout masks.
        apart = not self._draws.any and all(len(self._clean[point]) == n for point in points)
        return rows if apart and not self.network.couples_samples(self.batch.x, points) else None

    def _as_features(self, tensors: Mapping[str, Tensor]) -> Features:
        axes = self.network.survey.axes if self.network.survey else {}
        height, width = self.batch.x.shape[-2:]
        return Features(tensors, axes, (height, width))


class Trace:
    """What one penalty sees of a step.

    Args:
        step: the shared computations.
        layers: the penalty's own places.
        corruption: the one it declares.
        corrupted: which of the step's corrupted passes that is.
    """

    def __init__(self, step: Step, layers: tuple[str, ...], corruption: Corruption | None, corrupted: int) -> None:
        self._step, self._layers = step, layers
        self._corruption, self._corrupted = corruption, corrupted

    @property
    def batch(self) -> Batch:
        """The checked batch."""
        return self._step.batch

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
        if corruption is not self._corruption and corruption != self._corruption:
            raise ModelError(
                got=f"a penalty that reads {corruption} and declares {self._corruption}",
                needed="the corruption that it declares",
                fix="set its attribute `corruption` before the guard's first step",
            )
        x, features = self._step.corrupted[self._corrupted]
        return Corrupted(x, features.only(self._layers))

    def input_gradient(self, score: str | Score) -> Tensor:
        """Differentiate a score of the logits with respect to the images.

        Args:
            score: ``"target"``, ``"contrast"`` or ``"log_probs"``, see :mod:`attribguard.functional.scores`, or a
                hashable callable ``(logits, target) -> (N,)``. Penalties that use one score share one gradient.

        Returns:
            (N, C, H, W), with a graph of its own, through which one can train.

        Raises:
            ModelError: if the penalty does not declare ``needs_input_gradient``.
        """
        return self._step.input_gradient(score)

    def forward(self, x: Tensor) -> Tensor:
        """Run the model on other images, (N, C, H, W), as the main pass ran: (N, K) logits."""
        return self._step.forward(x)
