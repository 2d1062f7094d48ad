"""Captum's attributions as heat maps over images."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribguard.attribution.model import Attributor, chosen_classes, model_behind
from attribguard.errors import ShapeError
from attribguard.modes import undisturbed

if TYPE_CHECKING:  # captum takes a while to import, and who calls this has done so
    from captum.attr._utils.attribution import Attribution

__all__ = ["from_captum"]


def from_captum(method: Callable[..., Attribution], *, layer: str | None = None, **arguments: Any) -> Attributor:
    """Any of captum's attributions as ``attributor(model, x, target) -> (N, H, W)``.

    Attributions of several channels are summed over them; those of a layer are resized bilinearly to the image. The
    model runs in eval mode and without in-place activations, which would overwrite what captum's hooks kept and so
    falsify it, and is afterwards as it was.

    Args:
        method: a class of ``captum.attr``, or a callable that makes one from the model, such as
            ``lambda model: NoiseTunnel(Saliency(model))``.
        layer: a module's name, for captum's methods on layers.
        **arguments: of its ``attribute``, for instance ``n_steps=20``.

    Returns:
        The attributor; what it gives has no graph.

    Raises:
        ShapeError: when it is called, if the attribution is no map over the image.

    Example:
        >>> from captum.attr import IntegratedGradients
        >>> attributor = from_captum(IntegratedGradients, n_steps=8)
        >>> attributor(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2), None).shape
        torch.Size([3, 2, 2])
    """

    def attributor(model: nn.Module, x: Tensor, target: Tensor | int | None = None) -> Tensor:
        model = model_behind(model)
        made = method(model) if layer is None else method(model, model.get_submodule(layer))
        with undisturbed(model, x.device), _out_of_place(model):
            logits = model(x)
            classes = chosen_classes(logits, target)
            # Of a single output there is no class to select; against it is the other way round.
            asked = classes if logits.dim() == 2 and logits.shape[1] > 1 else None
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Input Tensor 0 did not already require gradients")
                drawn = made.attribute(x.detach().clone(), target=asked, **arguments)
        drawn = drawn if asked is not None else drawn * (2 * classes - 1).view(-1, *[1] * (drawn.dim() - 1))
        return _over_image(drawn.detach(), x)

    return attributor


def _over_image(drawn: Any, x: Tensor) -> Tensor:
    if not isinstance(drawn, Tensor) or drawn.dim() != 4 or len(drawn) != len(x):
        given = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
        raise ShapeError(
            got=f"an attribution of {given} for images of shape {tuple(x.shape)}",
            needed="(N, C, h, w)",
            fix="choose a method over the image, or a layer whose output is a map with the channels first",
        )
    size = (x.shape[-2], x.shape[-1])
    return F.interpolate(drawn.sum(1, keepdim=True), size=size, mode="bilinear", align_corners=False)[:, 0]


@contextlib.contextmanager
def _out_of_place(model: nn.Module) -> Iterator[None]:
    changed = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    try:
        for module in changed:
            module.inplace = False  # type: ignore[assignment]
        yield
    finally:
        for module in changed:
            module.inplace = True  # type: ignore[assignment]
