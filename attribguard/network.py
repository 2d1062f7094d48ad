"""What a guard knows of the model it wraps, and the ways in which it runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from attribguard.capture import Capture
from attribguard.errors import ModelError
from attribguard.modes import undisturbed
from attribguard.survey import Survey, survey

__all__ = ["Network", "Output"]

Output = Callable[[Any], Tensor] | str | int | None


class Network:
    """A model, the rule that picks its logits, and the hooks on it.

    Args:
        model: images to logits.
        output: a callable or key that picks the logits where the model gives a tuple or dict.
    """

    def __init__(self, model: nn.Module, output: Output) -> None:
        self.model, self.output = model, output
        self.capture = Capture()
        self.survey: Survey | None = None
        self._coupled: dict[tuple[bool, ...], bool] = {}

    def logits(self, x: Tensor) -> Tensor:
        """Run the model and pick the logits."""
        return self._select(self.model(x))

    def look(self, x: Tensor) -> Survey:
        """Survey the network on the first image of a batch, once."""
        if self.survey is None:
            self.survey = survey(self.model, x[:1].detach(), self._select)
        return self.survey

    def record(self, x: Tensor, points: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the model and take what passes at these places.

        Args:
            x: (N, C, H, W).
            points: names of places, whose hooks are installed.

        Returns:
            The logits, and place to tensor as the network made it.

        Raises:
            LayerError: if a place was not passed.
        """
        with self.capture.record(points) as recording:
            logits = self.logits(x)
        return logits, recording.complete()

    def record_only(self, x: Tensor, points: Collection[str]) -> dict[str, Tensor]:
        """As :meth:`record`, but the pass ends at the last of the places and gives no logits."""
        # A compiled graph drops by itself what nobody reads, and an exception would break it.
        with self.capture.record(points, stop_when_complete=not torch.compiler.is_compiling()) as recording:
            self.model(x)
        return recording.complete()

    def couples_samples(self, x: Tensor, points: Collection[str]) -> bool:
        """Whether, in the present train/eval modes, one image changes another's features, as in BatchNorm.

        Measured, not read off the module types, because any forward method may do it: the first image's features must
        be the same bits beside two different neighbours. The answer is kept for each combination of modes.

        Args:
            x: (N, C, H, W), N at least 2.
            points: the places to compare.
        """
        flags = tuple(module.training for module in self.model.modules())
        if flags not in self._coupled:
            with undisturbed(self.model, x.device, evaluating=False):
                beside = self.record_only(x[:2].detach(), points)
                other = self.record_only(torch.stack([x[0], torch.randn_like(x[1])]).detach(), points)
            self._coupled[flags] = not all(torch.equal(beside[point][0], other[point][0]) for point in points)
        return self._coupled[flags]

    def _select(self, output: Any) -> Tensor:
        try:
            if callable(self.output):
                logits = self.output(output)
            else:
                logits = output if self.output is None else output[self.output]
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelError(
                got=f"{_describe(output)} from the model, of which output={self.output!r} picks nothing",
                needed="an `output` that picks the logits",
                fix="pass the key or index of the logits, or a callable",
            ) from error
        if not isinstance(logits, Tensor):
            raise ModelError(
                got=f"{_describe(logits)} from the model",
                needed="logits as one tensor",
                fix="pass `output=`, the key or index of the logits, or a callable that picks them",
            )
        return logits


def _describe(output: Any) -> str:
    if isinstance(output, dict):
        return f"a {type(output).__name__} with keys {list(output)}"
    if isinstance(output, list | tuple):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
