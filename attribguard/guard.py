"""The guard: a model with penalties on what it looks at."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from attribguard.criterion import Criterion, check_target, classification_loss
from attribguard.errors import ModelError, TypeMismatchError, check_choice
from attribguard.masks import inside
from attribguard.network import Network, Output
from attribguard.objective import GuardOutput, Plan, Reduction, make_plan, objective, what_is_asked
from attribguard.penalties.base import Penalty, check_weight
from attribguard.step import Batch
from attribguard.validation import Annotated, check_batch
from attribguard.value_checks import VALIDATE, Validate, looks_at_values

__all__ = ["Guard"]


class Guard(nn.Module):
    """A wrapped model; made by :func:`attribguard.wrap`, which says what the arguments are.

    ``guard(x)`` is exactly ``model(x)``. ``guard(x, target, mask=...)`` runs the model once, adds the penalties and
    returns a :class:`GuardOutput`. The model keeps its own modules, parameters and state dict keys; outside a guarded
    call its hooks do nothing, and :meth:`unwrap` removes them.

    Attributes:
        model: the user's model.
        penalties: the penalties, whose weights may be changed between steps.
    """

    def __init__(
        self,
        model: nn.Module,
        penalties: Sequence[Penalty],
        criterion: Criterion | None,
        criterion_weight: float,
        output: Output,
        reduction: Reduction,
        validate: Validate,
    ) -> None:
        super().__init__()
        self.model = model
        self.penalties = nn.ModuleList(penalties)
        self.criterion = criterion
        self.criterion_weight = criterion_weight
        check_choice("reduction", reduction, ("batch", "annotated"))
        check_choice("validate", validate, VALIDATE)
        self.reduction, self.validate = reduction, validate
        self._network = Network(model, output)
        # From now on the model is known to be wrapped, until this guard is unwrapped or gone.
        self._network.capture.install(model, [""])
        weakref.finalize(self, self._network.capture.remove)
        self._plan: Plan | None = None
        self._steps, self._warned, self._unwrapped = 0, False, False

    @property
    def criterion_weight(self) -> float:
        """The weight of the classification loss."""
        return self._criterion_weight

    @criterion_weight.setter
    def criterion_weight(self, weight: float) -> None:
        self._criterion_weight = check_weight(weight, "criterion_weight")

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
        annotations = (mask, annotated, segmentation)
        if torch.is_grad_enabled() or not self._needs_graph():
            return self._guarded(x, target, *annotations)
        # A gradient inside a penalty needs a graph even where the caller wants none of the result.
        with torch.inference_mode(False), torch.enable_grad():
            out = self._guarded(*map(_outside_inference_mode, (x, target, *annotations)))
        return out._replace(loss=out.loss.detach(), logits=out.logits.detach())

    def _guarded(
        self, x: Tensor, target: Any, mask: Tensor | None, annotated: Annotated, segmentation: Tensor | None
    ) -> GuardOutput:
        batch, plan = self._prepare(x, target, mask, annotated, segmentation)
        if any(p.needs_input_gradient for p in self._penalties()) and not batch.x.requires_grad:
            batch = batch._replace(x=batch.x.detach().requires_grad_())
        criterion = classification_loss if self.criterion is None else self.criterion
        weight, reduction = self.criterion_weight, self.reduction
        return objective(self._network, batch, self._penalties(), plan, criterion, weight, reduction)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def survey(self, example: Tensor) -> Plan:
        """Find the layers that the penalties ask for, by one dry run; happens by itself at the first guarded call.

        Args:
            example: (N, C, H, W), on the model's device.

        Returns:
            What a step needs; :attr:`layers` shows the part that is of interest.

        Raises:
            LayerError: if a penalty's layers cannot be had.
            ModelError: if the model gives no single tensor and ``output`` does not pick one.
        """
        plan = make_plan(self._penalties(), self._network, example)
        self._network.capture.install(self.model, plan.points)
        for point in plan.differentiated:
            plan.tails.find(point, example)
        self._plan = plan
        return plan

    @property
    def layers(self) -> dict[str, tuple[str, ...]] | None:
        """Penalty to the places it reads, in the order of the pass; ``None`` before the first dry run."""
        return None if self._plan is None else self._plan.layers

    def unwrap(self) -> nn.Module:
        """Take every hook off the model and return it. The guard then only passes images on."""
        self._network.capture.remove()
        self._plan, self._unwrapped = None, True
        return self.model

    def _needs_graph(self) -> bool:
        return any(penalty.needs_input_gradient or penalty.needs_layer_gradient for penalty in self._penalties())

    def _penalties(self) -> list[Penalty]:
        return list(self.penalties)  # type: ignore[arg-type]

    def _prepare(
        self, x: Tensor, target: Any, mask: Tensor | None, annotated: Annotated, segmentation: Tensor | None
    ) -> tuple[Batch, Plan]:
        """Everything that may be refused, before anything is changed."""
        compiling = torch.compiler.is_compiling()
        if compiling and any(penalty.needs_input_gradient for penalty in self._penalties()):
            raise ModelError(
                got="a compiled guard with a penalty on input gradients",
                needed="a graph without a backward pass inside, which torch.compile cannot follow",
                fix="leave the guard uncompiled, or use penalties on features such as ActDiff",
            )
        if self._unwrapped:
            raise ModelError(got="a guarded call after unwrap()", needed="a guard", fix="wrap the model again")
        values = looks_at_values(self.validate, self._steps, x)
        batch = check_batch(x, target, mask, annotated, segmentation, values=values)
        plan = self._plan
        if plan is not None and not compiling and plan.asked != what_is_asked(self._penalties()):
            plan = None
        if plan is None:
            if compiling:
                raise ModelError(
                    got="a compiled guard that has not seen its layers yet",
                    needed="one look at the network before it is compiled",
                    fix="pass example_input to wrap, or make one guarded call before torch.compile",
                )
            self._network.look(x)
        if self.criterion is None and self._network.survey is not None:
            check_target(target, len(x), self._network.survey.logits, values=values)
        if plan is None:
            plan = self.survey(x)
        if values and mask is not None and not self._warned:
            self._warn_of_empty_masks(batch)
        if not compiling:
            self._steps += 1
        return batch, plan

    def _warn_of_empty_masks(self, batch: Batch) -> None:
        if bool((batch.annotated & ~inside(batch.mask).flatten(1).any(1)).any()):
            self._warned = True
            warnings.warn(
                "a mask is empty on an annotated row, so that all of its image counts as irrelevant; if it means "
                "'no mask', mark the row False in `annotated`",
                stacklevel=7,
            )


def _outside_inference_mode(x: Any) -> Any:
    return x.clone() if isinstance(x, Tensor) and x.is_inference() else x
