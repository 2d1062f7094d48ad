"""Everything that is computed for one batch: the passes over it and the gradients in it, each run once."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from attribguard.batch import Batch
from attribguard.corrupted_pass import Compared, Corrupted, CorruptedPass, CorruptedReads, points_read
from attribguard.double_backward import Phase
from attribguard.draws import Draws, EagerDraws, TracedDraws
from attribguard.errors import ModelError, ShapeError
from attribguard.functional.margin import MARGIN_SCORES, margin, slope
from attribguard.functional.scores import Score, as_matrix, named_score
from attribguard.layout import Features
from attribguard.modes import ScratchBuffers
from attribguard.network import Network
from attribguard.processes import check_differentiable_again, in_process_group
from attribguard.second_order import scaled_gradient, twice_differentiable
from attribguard.tail import Tails

__all__ = ["GRADIENTS", "Gradients", "Step"]

Gradients = Literal["exact", "shared", "autograd"]
GRADIENTS: tuple[Gradients, ...] = get_args(Gradients)


class Step:
    """Everything that is computed for one batch, each thing once, for all penalties.

    Args:
        network: the wrapped model.
        tails: what is known of its classifier.
        batch: the checked batch.
        layers: the places to record in the main pass.
        corruptions: the corruptions, and what is read of the passes over them.
        differentiated: the layers with respect to which logits are differentiated.
        twice: whether the input gradient will be differentiated again.
        gradients: as :func:`attribguard.wrap` says.

    Attributes:
        logits: (N, K), of the main pass.
        features: of the main pass, at the places that somebody still reads.
    """

    def __init__(
        self,
        network: Network,
        tails: Tails,
        batch: Batch,
        layers: tuple[str, ...],
        corruptions: Sequence[CorruptedReads],
        differentiated: tuple[str, ...] = (),
        twice: bool = False,
        gradients: Gradients = "exact",
    ) -> None:
        self._images = batch.x
        if twice and not batch.x.requires_grad:
            batch = batch._replace(x=batch.x.detach().requires_grad_())
        self.network, self.batch = network, batch
        self._draws: Draws = TracedDraws() if torch.compiler.is_compiling() else EagerDraws(batch.x.device)
        kind = batch.x.device.type
        self._autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        self._scratch = ScratchBuffers(network.model)
        self._gradients: dict[Score, Tensor] = {}
        if twice:
            check_differentiable_again(network.model)
        self._of_margin: Tensor | None = None
        by_form = gradients != "autograd"
        self._shares = twice and by_form and (gradients == "shared" or not network.couples_samples(batch.x, ()))
        self._tails = {point: tails.find(point, batch.x) if by_form else None for point in differentiated}
        self._phase = Phase(None if batch.x is self._images else batch.x)
        again = twice or any(self._tails[point] is None for point in differentiated)
        with self._draws.recorded(), _differentiated_twice(again, self._phase if by_form else None):
            self.logits, self._clean = network.record(batch.x, layers, differentiated)
        self.features = self._as_features(self._clean)
        self._corruptions = corruptions
        self._corrupted_images = [reads.corruption(self._images, batch.mask) for reads in corruptions]
        self._passes: dict[int, CorruptedPass] = {}

    def finish(self) -> None:
        """Say that all inner gradients were taken."""
        self._phase.over = True

    def keep_only(self, points: Collection[str], passes: Collection[int]) -> None:
        """Let go of the places and corrupted passes that nobody reads any more, for they are most of what is held."""
        for point in [point for point in self._clean if point not in points]:
            self._release(point)
        for index in [index for index in self._passes if index not in passes]:
            del self._passes[index]

    def _release(self, point: str) -> None:
        del self._clean[point], self.features.raw[point]

    def corrupted_images(self, index: int) -> Tensor:
        """(N, C, H, W), the images of one of the corruptions."""
        return self._corrupted_images[index]

    def corrupted(self, index: int, points: tuple[str, ...], later: Collection[str]) -> Corrupted:
        """The pass over them, at these places; of the clean one, they and the places read later are kept."""
        read = self._corrupted_pass(index, {*points, *later})
        # The mask of a row that is not annotated is all ones: its corrupted image is the image, and its features are
        # the clean ones.
        features = {
            p: read.whole[p] if read.rows is None else self._clean[p].index_copy(0, read.rows, read.whole[p])
            for p in points
        }
        return Corrupted(self._corrupted_images[index], self._as_features(features))

    def compared(self, index: int, penalty: str, later: Collection[str]) -> Compared:
        """What a penalty made of both passes; of the clean one, only the places read later are kept."""
        read = self._corrupted_pass(index, later)
        return Compared(slice(None) if read.rows is None else read.rows, read.compared[penalty])

    def maps(self, points: tuple[str, ...]) -> list[Tensor]:
        """These places of the main pass as (N, C, h, w), in the type in which the network made them."""
        return self.network.maps(self._clean, points, self.batch.x)

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
            d = margin(self.logits, self.batch.target) if self._shares and function in MARGIN_SCORES else None
            if d is not None:
                slopes = slope(function, d, self.batch.target, as_matrix(self.logits).shape[1])
                self._gradients[function] = slopes[:, None, None, None] * self._margin_gradient(d)
                return self._gradients[function]
            scores = function(self.logits, self.batch.target)
            if scores.shape != (len(self.batch.x),):
                raise ShapeError(
                    got=f"scores of shape {tuple(scores.shape)}",
                    needed=f"one score an image, ({len(self.batch.x)},)",
                    fix="let the score reduce the other axes",
                )
            self._gradients[function] = self._differentiate(scores, self.batch.x)
        return self._gradients[function]

    def _margin_gradient(self, margin: Tensor) -> Tensor:
        """That of all scores that depend on the margin alone, but for their slopes."""
        if self._of_margin is None:
            self._of_margin = self._differentiate(margin, self.batch.x)
        return self._of_margin

    def _differentiate(self, scores: Tensor, inputs: Tensor) -> Tensor:
        with self._phase.towards_input():
            return self.gradient(scores, inputs)

    def layer_gradient(self, point: str, weights: Tensor) -> Tensor:
        """The gradient of the weighted logits with respect to a layer, (N, C, h, w) or (N, C, 1, 1)."""
        features, tail = self.features[point], self._tails[point]
        if tail is not None:
            return tail.gradient(self.network.model, weights, features)
        gradient = self._differentiate(as_matrix(self.logits) * weights, self._clean[point])
        return self._as_features({point: gradient})[point]

    def gradient(self, scores: Tensor, inputs: Tensor) -> Tensor:
        """The gradient of summed scores with respect to what they depend on, with its own graph."""
        _, dtype, enabled = self._autocast
        return scaled_gradient(scores, inputs, torch.float16 in (self.batch.x.dtype, dtype if enabled else None))

    def forward(self, x: Tensor) -> Tensor:
        """A further pass: the same dropout, the caller's autocast, running statistics left alone."""
        if x.requires_grad:
            check_differentiable_again(self.network.model)
        with self._ambient(), _differentiated_twice(x.requires_grad), self._scratch, self._draws.replayed():
            return self.network.logits(x)

    def _ambient(self) -> torch.autocast:
        """The caller's autocast, for penalties are computed outside of it."""
        kind, dtype, enabled = self._autocast
        return torch.autocast(kind, dtype=dtype, enabled=enabled)

    def _corrupted_pass(self, index: int, later: Collection[str]) -> CorruptedPass:
        """One of these passes, run when it is first read; of the clean one, only the places read later are kept."""
        if index in self._passes:
            return self._passes[index]
        reads, x = self._corruptions[index], self._corrupted_images[index]
        points = points_read(reads)
        rows = self._rows(points)
        read = self._passes[index] = CorruptedPass(reads, rows)

        def keep(point: str, corrupted: Tensor) -> None:
            read.keep(point, self.features.raw[point], corrupted)
            if point not in later:
                self._release(point)

        if rows is not None and rows.numel() == 0:
            for point in points:
                keep(point, self._clean[point][rows])
        else:
            with self._ambient(), self._scratch, self._draws.replayed():
                self.network.record_only(x if rows is None else x[rows], points, keep)
        return read

    def _rows(self, points: tuple[str, ...]) -> Tensor | None:
        """The rows that the corrupted pass needs, or ``None`` for all of them."""
        # What runs must not depend on the data where a graph is compiled or where other processes wait for this one.
        if torch.compiler.is_compiling() or in_process_group():
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


def _differentiated_twice(wanted: bool, phase: Phase | None = None) -> contextlib.AbstractContextManager[None]:
    return twice_differentiable(phase) if wanted else contextlib.nullcontext()
