"""The guard: a model with penalties on what it looks at."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from attribguard.criterion import Criterion, check_target, classification_loss
from attribguard.errors import ModelError, RangeError, TypeMismatchError
from attribguard.layers import check_layers, resolve_layers
from attribguard.network import Network, Output
from attribguard.objective import GuardOutput, objective
from attribguard.penalties.base import Penalty, check_weight
from attribguard.trace import Batch
from attribguard.validation import Annotated, check_batch

__all__ = ["Guard"]

# On an accelerator, looking at a mask's values means waiting for it; mistakes show in the first steps.
_CHECKED_STEPS = 10


class Guard(nn.Module):
    """A wrapped model; made by :func:`attribguard.wrap`, which says what the arguments are.

    ``guard(x)`` is exactly ``model(x)``. ``guard(x, target, mask=...)`` runs the model once, adds the penalties and
    returns a :class:`GuardOutput`. The model keeps its own modules, parameters and state dict keys; outside a guarded
    call its hooks do nothing, and :meth:`unwrap` removes them.

    Attributes:
        model: the user's model.
        penalties: the penalties, whose weights may be changed between steps.
        criterion_weight: the weight of the classification loss.
    """

    def __init__(
        self,
        model: nn.Module,
        penalties: Sequence[Penalty],
        criterion: Criterion | None,
        criterion_weight: float,
        output: Output,
        reduction: Literal["batch", "annotated"],
        validate: Literal["auto"] | bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.penalties = nn.ModuleList(penalties)
        self.criterion = criterion
        self.criterion_weight = check_weight(criterion_weight, "criterion_weight")
        if reduction not in ("batch", "annotated"):
            raise RangeError(got=f"reduction={reduction!r}", needed="'batch' or 'annotated'", fix="choose one")
        if validate not in ("auto", True, False):
            raise RangeError(got=f"validate={validate!r}", needed="'auto', True or False", fix="choose one")
        self.reduction, self.validate = reduction, validate
        self._network = Network(model, output)
        self._layers: dict[str, tuple[str, ...]] | None = None
        self._steps, self._warned = 0, False
        for penalty in penalties:
            check_layers(penalty.layers, model)

    if TYPE_CHECKING:

        @overload
        def __call__(self, x: Tensor) -> Any: ...
        @overload
        def __call__(
            self,
            x: Tensor,
            target: Any,
            *,
            mask: Tensor | None = None,
            annotated: Annotated = None,
            segmentation: Tensor | None = None,
        ) -> GuardOutput: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """As :meth:`forward`."""

    @overload
    def forward(self, x: Tensor) -> Any: ...
    @overload
    def forward(
        self,
        x: Tensor,
        target: Any,
        *,
        mask: Tensor | None = None,
        annotated: Annotated = None,
        segmentation: Tensor | None = None,
    ) -> GuardOutput: ...
    def forward(
        self,
        x: Tensor,
        target: Any = None,
        *,
        mask: Tensor | None = None,
        annotated: Annotated = None,
        segmentation: Tensor | None = None,
    ) -> Any:
        """Run the model alone, or one guarded step.

        Args:
            x: (N, C, H, W) images.
            target: what the criterion takes; without a target the call is exactly ``model(x)``.
            mask: (N, 1, H, W) or (N, H, W), 1 = relevant, in [0, 1]; ``None``: nobody is annotated.
            annotated: (N,) bool, whose annotation counts, or a mapping ``{"mask": ..., "segmentation": ...}`` where the
                two kinds are not on the same rows; all that is given counts by default.
            segmentation: (N, H, W) class indices.

        Returns:
            The model's output without a target, otherwise a :class:`GuardOutput`.

        Raises:
            AttribGuardError: one for each kind of bad input, before anything is changed.
        """
        if target is None:
            if not (mask is None and annotated is None and segmentation is None):
                raise TypeMismatchError(
                    got="annotations without a target", needed="guard(x) or guard(x, target, ...)", fix="pass a target"
                )
            return self.model(x)
        needs_gradient = any(penalty.needs_input_gradient for penalty in self._penalties())
        with_graph = torch.is_grad_enabled()
        with contextlib.ExitStack() as stack:
            if needs_gradient and not with_graph:
                # An input gradient needs a graph even where the caller wants none of the result.
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.enable_grad())
                x, target, mask, segmentation = map(_outside_inference_mode, (x, target, mask, segmentation))
            batch, layers = self._prepare(x, target, mask, annotated, segmentation)
            if needs_gradient and not batch.x.requires_grad:
                batch = batch._replace(x=batch.x.detach().requires_grad_())
            criterion = classification_loss if self.criterion is None else self.criterion
            out = objective(
                self._network, batch, self._penalties(), layers, criterion, self.criterion_weight, self.reduction
            )
        return out if with_graph else out._replace(loss=out.loss.detach(), logits=out.logits.detach())

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def survey(self, example: Tensor) -> None:
        """Find the layers that the penalties ask for, by one dry run; happens by itself at the first guarded call.

        Args:
            example: (N, C, H, W), on the model's device.

        Raises:
            LayerError: if a penalty's layers cannot be had.
            ModelError: if the model gives no single tensor and ``output`` does not pick one.
        """
        seen = self._network.look(example)
        layers = {penalty.name: resolve_layers(penalty.layers, seen) for penalty in self._penalties()}
        self._network.capture.install(self.model, [point for points in layers.values() for point in points])
        self._layers = layers

    @property
    def layers(self) -> dict[str, tuple[str, ...]] | None:
        """Penalty to the places it reads, in the order of the pass; ``None`` before the first dry run."""
        return self._layers

    def unwrap(self) -> nn.Module:
        """Take every hook off the model and return it. The guard then only passes images on."""
        self._network.capture.remove()
        self._layers, self._unwrapped = None, True
        return self.model

    _unwrapped = False

    def _penalties(self) -> list[Penalty]:
        return list(self.penalties)  # type: ignore[arg-type]

    def _prepare(
        self, x: Tensor, target: Any, mask: Tensor | None, annotated: Annotated, segmentation: Tensor | None
    ) -> tuple[Batch, dict[str, tuple[str, ...]]]:
        """Everything that may be refused, before anything is changed."""
        if self._unwrapped:
            raise ModelError(got="a guarded call after unwrap()", needed="a guard", fix="wrap the model again")
        compiling = torch.compiler.is_compiling()
        values = not compiling and self._checks_values(x)
        batch = check_batch(x, target, mask, annotated, segmentation, values=values)
        if self._layers is None:
            if compiling:
                raise ModelError(
                    got="a compiled guard that has not seen its layers yet",
                    needed="one look at the network before it is compiled",
                    fix="pass example_input to wrap, or make one guarded call before torch.compile",
                )
            self.survey(x)
        if self.criterion is None and self._network.survey is not None:
            check_target(target, len(x), self._network.survey.logits, values=values)
        if values and mask is not None and not self._warned:
            self._warn_of_empty_masks(batch)
        if not compiling:
            self._steps += 1
        return batch, self._layers or {}

    def _checks_values(self, x: Tensor) -> bool:
        if self.validate != "auto":
            return bool(self.validate)
        return self._steps < _CHECKED_STEPS or (isinstance(x, Tensor) and x.device.type == "cpu")

    def _warn_of_empty_masks(self, batch: Batch) -> None:
        if bool((batch.annotated & ~batch.mask.flatten(1).any(1)).any()):
            self._warned = True
            warnings.warn(
                "a mask is empty on an annotated row, so that all of its image counts as irrelevant; if it means "
                "'no mask', mark the row False in `annotated`",
                stacklevel=4,
            )


def _outside_inference_mode(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x
