"""The guard: a model with penalties on what it looks at, and auxiliary heads on its features."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from torch import Tensor, nn

from attribguard.criterion import Criterion, classification_loss
from attribguard.errors import TypeMismatchError, check_choice
from attribguard.heads.base import Head, switch_checkpointing
from attribguard.modes import outside_inference_mode
from attribguard.network import Network, Output
from attribguard.objective import GuardOutput, Prediction, objective
from attribguard.penalties.base import Penalty
from attribguard.plan import Plan, Reduction, Terms, check_compilable, make_plan, needs_graph, what_is_asked
from attribguard.processes import check_sharding
from attribguard.step import GRADIENTS, Gradients
from attribguard.term import check_weight
from attribguard.validation import Annotated, check_channels, check_step, check_wrapped, warn_of_empty_masks
from attribguard.value_checks import VALIDATE, Validate, looks_at_values
from attribguard.weighting import Weighting

__all__ = ["Guard"]

_ABSENT: Any = object()  # of `target`, because None is one where there is no classification


class Guard(nn.Module):
    """A wrapped model; :func:`attribguard.wrap` makes it, and says what the arguments are.

    ``guard(x)`` is exactly ``model(x)``. ``guard(x, target, mask=...)`` runs the model once, adds the penalties and
    heads and returns a :class:`GuardOutput`. The model keeps its own modules, parameters and state dict keys; outside
    a guarded call its hooks do nothing, and :meth:`unwrap` removes them.

    Attributes:
        model: the user's model.
        penalties: the penalties, whose weights may be changed between steps.
        heads: the heads by name, with the parameters of their decoders.
        weighting: what adapts the weights, or ``None``.
    """

    def __init__(
        self,
        model: nn.Module,
        penalties: Sequence[Penalty],
        heads: Sequence[Head],
        criterion: Criterion | Literal["none"] | None,
        criterion_weight: float,
        output: Output,
        weighting: Weighting | None,
        reduction: Reduction,
        validate: Validate,
        gradients: Gradients,
    ) -> None:
        super().__init__()
        self.model = model
        self.penalties = nn.ModuleList(penalties)
        self.heads = nn.ModuleDict({head.name: head for head in heads})
        self.criterion, self.criterion_weight = criterion, criterion_weight
        self.weighting = weighting
        check_choice("reduction", reduction, ("batch", "annotated"))
        check_choice("validate", validate, VALIDATE)
        check_choice("gradients", gradients, GRADIENTS)
        self.reduction, self.validate, self.gradients = reduction, validate, gradients
        self._network = Network(model, output)
        # From now on the model is known to be wrapped, until this guard is unwrapped or gone.
        self._network.capture.install(model, [""])
        weakref.finalize(self, self._network.capture.remove)
        self._plan: Plan | None = None
        self._steps, self._warned = 0, False

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

    def forward(
        self,
        x: Tensor,
        target: Any = _ABSENT,
        *,
        mask: Tensor | None = None,
        annotated: Annotated = None,
        segmentation: Tensor | None = None,
    ) -> Any:
        """Run the model alone, or one guarded step.

        Args:
            x: (N, C, H, W) images.
            target: what the criterion takes; without a target the call is exactly ``model(x)``. In a guard without a
                criterion the target may be ``None``, and a call without one gives the first head's prediction.
            mask: (N, 1, H, W) or (N, H, W), 1 = relevant, in [0, 1]; ``None``: nobody is annotated.
            annotated: (N,) bool, whose annotation counts, or a mapping ``{"mask": ..., "segmentation": ...}`` where the
                two kinds are not on the same rows; all that is given counts by default.
            segmentation: (N, H, W) class indices.

        Returns:
            The model's output without a target, otherwise a :class:`GuardOutput`.

        Raises:
            AttribGuardError: one for each kind of bad input, before anything is changed.
        """
        annotations = (mask, annotated, segmentation)
        classifies = self.criterion != "none"
        if target is _ABSENT or (target is None and classifies):
            if any(annotation is not None for annotation in annotations):
                step = "guard(x, target, ...)" if classifies else "guard(x, None, ...)"
                raise TypeMismatchError(
                    got="annotations without a target", needed=f"guard(x) or {step}", fix="pass a target"
                )
            if classifies:
                return self.model(x)
            first = [*self.heads.keys()][0]  # noqa: RUF015  # as a compiled graph of torch 2.6 follows it
            return self.predict(x, [first]).predictions[first]
        if torch.is_grad_enabled() or not needs_graph(self._terms().penalties):
            return self._guarded(x, target, *annotations)
        with torch.inference_mode(False), torch.enable_grad():
            out = self._guarded(*map(outside_inference_mode, (x, target, *annotations)))
        predictions = {name: drawn.detach() for name, drawn in out.predictions.items()}
        return out._replace(loss=out.loss.detach(), logits=out.logits.detach(), predictions=predictions)

    def predict(self, x: Tensor, heads: Sequence[str] | None = None) -> Prediction:
        """Run the model and just these heads.

        Args:
            x: (N, C, H, W) images.
            heads: their names; all by default.

        Returns:
            The logits, and a prediction a head.

        Raises:
            RangeError: if a head is unknown.
            ModelError: if the guard is unwrapped, or sharded and this method not registered with torch.
            ShapeError: if the images do not have the channels that the heads were made for.
        """
        if isinstance(heads, str):
            raise TypeMismatchError(got=f"heads={heads!r}", needed="a list of names", fix=f"pass [{heads!r}]")
        for name in heads or ():
            check_choice("head", name, tuple(self.heads.keys()))
        check_wrapped(self._network)
        check_sharding(self, self.weighting is not None)
        check_channels(x, self._network)
        self._plan = self._plan or self.survey(x)
        chosen = [head for head in self._terms().heads if heads is None or head.name in heads]
        points = tuple(dict.fromkeys(point for head in chosen for point in head.points))
        logits, tensors = self._network.record(x, points)
        drawn = {h.name: h(self._network.maps(tensors, h.points, x), (x.shape[-2], x.shape[-1])) for h in chosen}
        return Prediction(logits, drawn)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute instead of keeping: in the heads' decoders, and in the model where it offers this."""
        switch_checkpointing(self.model, self._terms().heads, enable)
        example = self._network.forget()
        if example is not None:
            self.survey(example)

    def _guarded(
        self, x: Tensor, target: Any, mask: Tensor | None, annotated: Annotated, segmentation: Tensor | None
    ) -> GuardOutput:
        # Everything that may be refused comes first, before anything is changed.
        terms, plan, compiling = self._terms(), self._plan, torch.compiler.is_compiling()
        if compiling:
            check_compilable(terms, plan)
        else:
            check_sharding(self, self.weighting is not None)
        check_wrapped(self._network)
        values = looks_at_values(self.validate, self._steps, x)
        batch = check_step(terms, self._network, x, target, mask, annotated, segmentation, values=values)
        if plan is None or (not compiling and plan.asked != what_is_asked(terms)):
            plan = self.survey(x)
        if values and mask is not None and not self._warned:
            self._warned = warn_of_empty_masks(batch)
        if not compiling:
            self._steps += 1
        return objective(self._network, batch, terms, plan)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def survey(self, example: Tensor) -> Plan:
        """Find the layers that penalties and heads ask for, by one dry run; the first guarded call does it too.

        Args:
            example: (N, C, H, W), on the model's device.

        Returns:
            What a step needs; :attr:`layers` shows the part that is of interest.

        Raises:
            LayerError: if a penalty's layers cannot be had.
            ModelError: if the model gives no single tensor and ``output`` does not pick one.
        """
        check_sharding(self, self.weighting is not None)
        terms, seen = self._terms(), self._network.look(example)
        for head in terms.heads:
            if head.decoder is None:
                head.attach(self.model, seen)
        plan = make_plan(terms, self._network, example)
        self._network.capture.install(self.model, plan.points)
        for point in plan.differentiated:
            plan.tails.find(point, example)
        self._plan = plan
        return plan

    @property
    def layers(self) -> dict[str, tuple[str, ...]] | None:
        """Penalty or head to the places it reads, in the order of the pass; ``None`` before the first dry run."""
        return None if self._plan is None else self._plan.layers

    def unwrap(self) -> nn.Module:
        """Take every hook off the model and return it. The guard then only passes images on."""
        self._network.capture.remove()
        self._plan = None
        return self.model

    def _terms(self) -> Terms:
        criterion = classification_loss if self.criterion is None else self.criterion
        return Terms(
            None if criterion == "none" else criterion,
            self.criterion_weight,
            list(self.penalties),  # type: ignore[arg-type]
            list(self.heads.values()),  # type: ignore[arg-type]
            self.reduction,
            self.weighting,
            self.gradients,
        )
