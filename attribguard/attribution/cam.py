"""Class activation maps of a trained network, without a backward pass where its classifier is linear in the map."""

from __future__ import annotations

import weakref
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribguard.attribution.model import chosen_classes, model_behind
from attribguard.errors import LayerError, ModelError, check_choice
from attribguard.functional.cam import CamMethod, class_activation_map, gradcam_plus_plus
from attribguard.functional.scores import as_matrix, logit_weights
from attribguard.layers import AUTO, check_layers, resolve_layers
from attribguard.modes import undisturbed
from attribguard.network import Network, Output
from attribguard.second_order import scaled_gradient
from attribguard.survey import Survey
from attribguard.tail import LinearTail, last_map, linear_tail

__all__ = ["Look", "cam", "look"]

Method = Literal["gradcam", "hirescam", "cam", "gradcam++"]
METHODS: tuple[Method, ...] = ("gradcam", "hirescam", "cam", "gradcam++")
Size = Literal["input", "map"]


def cam(
    model: nn.Module,
    x: Tensor,
    target: Tensor | int | None = None,
    *,
    layer: str = AUTO,
    method: Method = "gradcam",
    size: Size = "input",
    relu: bool = True,
    output: Output = None,
) -> Tensor:
    """Where the features speak for a class. Never normalised.

    ``"gradcam"`` (Selvaraju et al. 2017) and ``"hirescam"`` (Draelos and Carin 2020) are
    :func:`attribguard.functional.class_activation_map`, ``"gradcam++"`` (Chattopadhay et al. 2018) is
    :func:`attribguard.functional.gradcam_plus_plus`; ``"cam"`` (Zhou et al. 2016) weighs the channels by the linear
    layer behind global average pooling, and is Grad-CAM times the number of the map's cells. Scores are logits.

    Where the logits are linear in the map (pooling or flattening and one linear layer, which is measured) no backward
    pass runs. The model runs in eval mode, and is afterwards as it was; what was found out about it is kept for the
    next call.

    Args:
        model: images to logits (N, K); channels-first, channels-last and token networks. A guard is looked behind.
        x: (N, C, H, W).
        target: (N,) class indices, one for all, or ``None``: the predicted. With one output 1 asks for what speaks for
            it, 0 for what speaks against it.
        layer: ``"auto"``: the last map over the image on which the logits depend; otherwise a module's name.
        method: ``"gradcam"``, ``"hirescam"``, ``"cam"`` or ``"gradcam++"``.
        size: ``"input"`` resizes bilinearly to the images, after the ReLU; ``"map"`` leaves the layer's size.
        relu: whether only evidence for the class is kept; otherwise maps are signed.
        output: picks the logits where the model gives a tuple or dict: an index, a key or a callable.

    Returns:
        (N, H, W), or (N, h, w), float32 or float64, without a graph.

    Raises:
        LayerError: if there is no such layer, or it has no spatial extent.
        ModelError: if ``"cam"`` is asked of a network without pooling and a linear layer behind that map.
        AttribGuardError: if the target does not fit, or an option is unknown.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> cam(model, torch.rand(3, 1, 8, 8), target=1).shape
        torch.Size([3, 8, 8])
        >>> cam(model, torch.rand(3, 1, 8, 8), size="map").shape
        torch.Size([3, 6, 6])
    """
    check_choice("method", method, METHODS)
    check_choice("size", size, ("input", "map"))
    network = Network(model_behind(model), output)
    point, tail = _find(network, layer, x)
    if method == "cam" and (tail is None or tail.form != "pooled"):
        raise ModelError(
            got=f"method='cam' on a network without global pooling and one linear layer behind {point!r}",
            needed="a classifier that is linear in the mean of that map",
            fix="use method='gradcam', which is the same map up to a factor where both exist",
        )
    _, features, gradient = _differentiate(network, x, target, point, tail)
    if method == "gradcam++":
        drawn = gradcam_plus_plus(features, gradient)
    else:
        averaging: CamMethod = "hirescam" if method == "hirescam" else "gradcam"
        drawn = class_activation_map(features, gradient, averaging)
        drawn = drawn * features.shape[-2:].numel() if method == "cam" else drawn
    drawn = drawn.relu() if relu else drawn
    if size == "map":
        return drawn
    return F.interpolate(drawn[:, None], size=x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


class Look(NamedTuple):
    """What one forward pass shows.

    Attributes:
        logits: (N, K).
        features: (N, U, h, w), the last map over the image, channels first.
        attribution: (N, h, w), Grad-CAM of the predicted classes, 0 or more.
    """

    logits: Tensor
    features: Tensor
    attribution: Tensor


def look(model: nn.Module, x: Tensor) -> Look:
    """Logits, features and Grad-CAM of the predicted classes, from one forward pass.

    The model runs in eval mode, and is afterwards as it was.

    Args:
        model: images to logits, as for :func:`cam`.
        x: (N, C, H, W).

    Raises:
        LayerError: as :func:`cam` does.
    """
    network = Network(model_behind(model), None)
    point, tail = _find(network, AUTO, x)
    logits, features, gradient = _differentiate(network, x, None, point, tail)
    return Look(as_matrix(logits.detach()), features, class_activation_map(features, gradient).relu())


class _Facts:
    """What was found out about one network. Holds nothing of it, so that it does not keep it alive."""

    def __init__(self, model: nn.Module, output: Output) -> None:
        self.output, self.modules = output, tuple(map(id, model.modules()))
        self.survey: Survey | None = None
        self.found: dict[tuple[str, torch.Size], tuple[str, LinearTail | None]] = {}


_FACTS: weakref.WeakKeyDictionary[nn.Module, _Facts] = weakref.WeakKeyDictionary()


def _facts(model: nn.Module, output: Output) -> _Facts:
    facts = _FACTS.get(model)
    # Another classifier, say, makes it another network.
    if facts is None or facts.output != output or facts.modules != tuple(map(id, model.modules())):
        facts = _FACTS[model] = _Facts(model, output)
    return facts


def _find(network: Network, layer: str, x: Tensor) -> tuple[str, LinearTail | None]:
    """The map's place, and the linear classifier behind it if there is one."""
    model, facts = network.model, _facts(network.model, network.output)
    network.survey = facts.survey
    key = layer, x.shape[1:]
    if key not in facts.found:
        if layer == AUTO:
            point = last_map(network, x)
        else:
            check_layers((layer,), model)
            points = resolve_layers((layer,), network.look(x))
            if len(points) != 1:
                raise LayerError(got=f"{layer!r}, which is {len(points)} layers", needed="one", fix=f"one of {points}")
            (point,) = points
        # Measured in eval mode, in which the maps are drawn.
        with undisturbed(model, x.device), network.capture.lent(model, [point]):
            facts.found[key] = point, linear_tail(network, point, x)
        facts.survey = network.survey
    return facts.found[key]


def _differentiate(
    network: Network, x: Tensor, target: Tensor | int | None, point: str, tail: LinearTail | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The logits, the map, (N, C, h, w), and the gradient of the classes' logits with respect to it."""
    model = network.model
    on_path = () if tail is not None else (point,)
    with (
        undisturbed(model, x.device),
        torch.set_grad_enabled(tail is None),
        network.capture.lent(model, [point]),
    ):
        logits, tensors = network.record(x.detach(), [point], on_path)
        (features,) = network.maps(tensors, [point], x)
        if features.shape[-2:].numel() == 1:
            raise LayerError(
                got=f"features of shape {tuple(features.shape)} at {point!r}",
                needed="a map with spatial extent",
                fix="name an earlier layer",
            )
        weights = logit_weights("target", logits, chosen_classes(logits, target))
        if tail is not None:
            return logits, features, tail.gradient(model, weights, features)
        half = torch.float16 in (tensors[point].dtype, logits.dtype)
        raw = scaled_gradient(as_matrix(logits) * weights, tensors[point], half)
        (gradient,) = network.maps({point: raw}, [point], x)
    return logits, features.detach(), gradient.detach()
