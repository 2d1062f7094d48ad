"""What a guard knows of the model it wraps, and the ways in which it runs it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attribguard.capture import Capture, Keep
from attribguard.errors import ModelError
from attribguard.layout import to_nchw
from attribguard.modes import RandomState, undisturbed
from attribguard.processes import gather_for_gradients, sharded_parts
from attribguard.survey import Survey, survey

__all__ = ["Network", "Output", "device_of", "floating_like", "without_wrappers"]

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
        self._coupled: dict[tuple[tuple[str, ...], tuple[bool, ...]], bool] = {}

    def modes(self) -> tuple[bool, ...]:
        """Each module's train/eval flag: what is measured of a network holds for one combination of them."""
        return tuple(module.training for module in self.model.modules())

    def logits(self, x: Tensor) -> Tensor:
        """Run the model and pick the logits."""
        return self.select(self.model(x))

    def parameter(self, name: str) -> Tensor:
        """What stands in a parameter's place: under ``torch.func.functional_call`` that is a plain tensor."""
        module, _, attribute = name.rpartition(".")
        tensor: Tensor = getattr(self.model.get_submodule(module), attribute)
        return tensor

    def look(self, x: Tensor) -> Survey:
        """Survey the network on the first image of a batch, once.

        Raises:
            ModelError: if it gives no single tensor, or writes into its images.
        """
        if self.survey is None:
            self.survey = survey(self.model, x, self.select)
        return self.survey

    def forget(self) -> Tensor | None:
        """Drop what was seen of the network, which may call other modules now.

        Returns:
            (1, C, H, W), noise of the size of the images on which it was seen, to look at it anew; ``None`` if it never
            was.
        """
        survey, self.survey = self.survey, None
        if survey is None:
            return None
        like = floating_like(self.model)
        noise = torch.rand(1, *survey.shapes[":input"][1:], generator=torch.Generator().manual_seed(0))
        return noise.to(like.device, like.dtype)

    def record(
        self, x: Tensor, points: Collection[str], on_path: Collection[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the model and take what passes at these places.

        Args:
            x: (N, C, H, W).
            points: names of places, whose hooks are installed.
            on_path: those with respect to which the logits will be differentiated.

        Returns:
            The logits, and place to tensor as the network made it.

        Raises:
            LayerError: if a place was not passed.
        """
        with self.capture.record(points, on_path=on_path) as recording:
            logits = self.logits(x)
        return logits, gather_for_gradients(self.model, recording.complete())

    def record_only(self, x: Tensor, points: Collection[str], keep: Keep | None = None) -> dict[str, Tensor]:
        """As :meth:`record`, but the pass ends at the last of the places and gives no logits.

        Args:
            x: (N, C, H, W).
            points: names of places.
            keep: takes what passes there, while the pass runs; nothing is returned then.
        """
        # A compiled graph drops by itself what nobody reads, and an exception would break it. What is sharded gathers
        # its parameters before each pass and gives them back at its end, which has to come.
        sharded = bool(sharded_parts(self.model))
        if sharded and keep is not None:
            keep = self._gathered(keep)
        to_the_end = torch.compiler.is_compiling() or sharded
        with self.capture.record(points, stop_when_complete=not to_the_end, keep=keep) as recording:
            self.model(x)
        return gather_for_gradients(self.model, recording.complete())

    def _gathered(self, keep: Keep) -> Keep:
        def keep_gathered(point: str, copy: Tensor) -> None:
            keep(point, gather_for_gradients(self.model, {point: copy})[point])

        return keep_gathered

    def maps(self, tensors: Mapping[str, Tensor], points: Iterable[str], x: Tensor) -> list[Tensor]:
        """Recorded tensors as maps.

        Args:
            tensors: as :meth:`record` gives them.
            points: which of them.
            x: the images.

        Returns:
            (N, C, h, w) each, views.
        """
        axes = self.look(x).axes
        return [to_nchw(tensors[point], axes.get(point), (x.shape[-2], x.shape[-1]), point) for point in points]

    def couples_samples(self, x: Tensor, points: tuple[str, ...]) -> bool:
        """Whether, in the present train/eval modes, one image changes another's features, as in BatchNorm.

        Measured, not only read off the module types, because any forward method may do it: an image's features must be
        the same bits beside two different neighbours, before and behind it. The answer is kept for these places and
        modes.

        Args:
            x: (N, C, H, W), N at least 1.
            points: the places to compare; none: the logits.
        """
        key = points, self.modes()
        if key not in self._coupled:
            self._coupled[key] = any(map(_uses_batch_statistics, self.model.modules())) or self._mixes(x, points)
        return self._coupled[key]

    def _mixes(self, x: Tensor, points: tuple[str, ...]) -> bool:
        with undisturbed(self.model, x.device, evaluating=False):
            first, second = x[:1].detach(), x[1:2].detach()
            other = torch.randn_like(first)
            second = second if len(second) else torch.randn_like(first)
            start = RandomState(x.device)
            seen = []
            for images in ([first, second], [first, other], [other, second]):
                start.restore()  # dropout draws alike
                pair = torch.cat(images)
                seen.append(self.record_only(pair, points) if points else {"": self.logits(pair)})
            both, ahead, behind = seen
            return not all(
                torch.equal(both[point][:1], ahead[point][:1]) and torch.equal(both[point][1:], behind[point][1:])
                for point in both
            )

    def select(self, output: Any) -> Tensor:
        """Pick the logits from what the model gave.

        Raises:
            ModelError: if there is no single tensor to pick.
        """
        try:
            if callable(self.output):
                logits = self.output(output)
            elif self.output is None or isinstance(output, Tensor):
                # Networks with auxiliary outputs give them in train mode only.
                logits = output
            elif isinstance(self.output, str) and hasattr(output, self.output):
                logits = getattr(output, self.output)
            else:
                logits = output[self.output]
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


def floating_like(module: nn.Module) -> Tensor:
    """A tensor of a module's device and floating type: its first such parameter, or float32 on the CPU without one."""
    return next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))


def device_of(module: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a module runs: where its first parameter or buffer is, or ``otherwise`` without one."""
    return next((tensor.device for tensor in itertools.chain(module.parameters(), module.buffers())), otherwise)


def without_wrappers(module: nn.Module) -> nn.Module:
    """What is inside ``torch.compile`` and data-parallel wrappers."""
    while True:
        if isinstance(module, nn.parallel.DistributedDataParallel | nn.DataParallel):
            module = module.module
        elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
            module = module._orig_mod  # type: ignore[assignment]
        else:
            return module


def _uses_batch_statistics(module: nn.Module) -> bool:
    # A scale of 0, from which residual branches start, would hide it from a measurement.
    return isinstance(module, _BatchNorm) and (module.training or module.running_mean is None)


def _describe(output: Any) -> str:
    if isinstance(output, dict):
        return f"a {type(output).__name__} with keys {list(output)}"
    if isinstance(output, list | tuple):
        return f"a {type(output).__name__} of {len(output)}"
    return f"a {type(output).__name__}"
