"""What stands between the last feature map and the logits: where the map is, and whether the rest is linear."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from attribguard.capture import Capture
from attribguard.compiling import refusal
from attribguard.errors import LayerError
from attribguard.layout import to_nchw
from attribguard.modes import undisturbed
from attribguard.network import Network
from attribguard.processes import check_differentiable_again, sharded_parts
from attribguard.survey import Survey

__all__ = ["LinearTail", "Tails", "last_map", "linear_tail"]


_refuse_layer_gradient = refusal(
    got="a compiled guard whose penalty needs a gradient with respect to a layer",
    needed="a linear classifier behind that layer, seen in the same train/eval mode before compiling",
    fix="make one guarded call before torch.compile, or leave the guard uncompiled",
)


class LinearTail(NamedTuple):
    """A classifier that is linear in the feature map.

    Attributes:
        linear: the name of its linear layer.
        form: ``"pooled"``: the map's mean enters it; ``"flat"``: the map's cells, one after the other.
    """

    linear: str
    form: Literal["pooled", "flat"]

    def gradient(self, model: nn.Module, weights: Tensor, features: Tensor) -> Tensor:
        """The gradient of the weighted logits with respect to the map, without a backward pass.

        Args:
            model: the network.
            weights: (N, K), the factor of each logit.
            features: (N, C, h, w), for its shape.

        Returns:
            (N, C, 1, 1) for a pooled map, else (N, C, h, w).
        """
        # By attribute: under torch.func.functional_call a plain tensor stands there.
        matrix: Tensor = getattr(model.get_submodule(self.linear), "weight")  # noqa: B009
        back = weights @ matrix.to(weights.dtype)
        cells = features.shape[-2] * features.shape[-1]
        return back[:, :, None, None] / cells if self.form == "pooled" else back.view_as(features)


def linear_tail(network: Network, point: str, x: Tensor) -> LinearTail | None:
    """Find out whether, in the present modes, the logits are linear in this map; measured on two images.

    Args:
        network: the wrapped model, with this point's hook installed.
        point: the map's place.
        x: (N, C, H, W).

    Returns:
        The tail, or ``None`` if there is more in between, such as dropout in train mode.
    """
    name = network.look(x).classifier
    module = None if name is None else network.model.get_submodule(name)
    if name is None or not isinstance(module, nn.Linear):
        return None
    # A weight that is computed (weight_norm, spectral_norm) belongs to one pass alone.
    if "weight" not in module._parameters or _is_sharded_apart(name, network.model):
        return None
    if any(_drops(network.model.get_submodule(module)) for module in _modules_behind(point, network.look(x))):
        return None
    with undisturbed(network.model, x.device, evaluating=False):
        for norm in network.model.modules():
            if isinstance(norm, nn.SyncBatchNorm):
                norm.training = False  # in train mode it waits for other processes, and runs on no CPU
        pair = torch.cat([x[:1], x[-1:] * 0.5]).detach()
        logits, tensors = network.record(pair, [point])
        raw = tensors[point]
        maps = to_nchw(raw, network.look(x).axes.get(point), (x.shape[-2], x.shape[-1]), point)
        if _gives(module, maps.mean((2, 3)), logits):
            return LinearTail(name, "pooled")
        return LinearTail(name, "flat") if _gives(module, raw.flatten(1), logits) else None


class Tails:
    """The linear tails of one network, measured once for each place and combination of modes.

    Args:
        network: the wrapped model.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._known: dict[tuple[str, tuple[bool, ...]], LinearTail | None] = {}

    def find(self, point: str, x: Tensor) -> LinearTail | None:
        """As :func:`linear_tail`.

        Raises:
            ModelError: in a compiled graph, if it was not measured before or is not linear: a gradient by autograd
                would break the graph; in several processes, if what the gradient passes has no second derivative, or
                its parameters are sharded apart from the guard.
        """
        key = point, self._network.modes()
        if torch.compiler.is_compiling():
            tail = self._known.get(key)
            if tail is None:
                _refuse_layer_gradient()
            return tail
        if key not in self._known:
            self._known[key] = linear_tail(self._network, point, x)
        tail = self._known[key]
        behind = _modules_behind(point, self._network.look(x)) if tail is None else [tail.linear]
        check_differentiable_again(self._network.model, behind)
        return tail


def _modules_behind(point: str, survey: Survey) -> list[str]:
    points = list(survey.points)
    return [name.partition("#")[0].removesuffix(":input") for name in points[points.index(point) + 1 :]]


def _is_sharded_apart(name: str, model: nn.Module) -> bool:
    return any(not part or f"{name}.".startswith(f"{part}.") for part in sharded_parts(model))


def _drops(module: nn.Module) -> bool:
    # Dropout shows in the logits too, but a rare one might not on the two images that are looked at.
    return isinstance(module, _DropoutNd) and module.training and module.p > 0


def _gives(linear: nn.Linear, entering: Tensor, logits: Tensor) -> bool:
    if entering.shape[1] != linear.in_features:
        return False
    tolerance = 1e-4 if logits.dtype in (torch.float32, torch.float64) else 2e-2
    difference = F.linear(entering, linear.weight, linear.bias) - logits
    return bool(difference.abs().max() <= tolerance * logits.abs().max())


def last_map(network: Network, x: Tensor) -> str:
    """The last place in the network that holds a map over the image on which the logits depend.

    With global pooling that is the tensor that enters the pool. In networks of tokens it is what enters a module, for
    instance the last attention of a ViT: behind it the logits depend on the class token alone.

    Args:
        network: the wrapped model.
        x: (N, C, H, W).

    Returns:
        The name of the place.

    Raises:
        LayerError: if there is none.
    """
    survey = network.look(x)
    size = (x.shape[-2], x.shape[-1])
    # Those whose axes the operators did not tell come last: an attention's weights, query by key, look like a map.
    backward = list(reversed(survey.points))
    for point in sorted(backward, key=lambda point: point not in survey.axes):
        shape = survey.shapes[point]
        is_image = shape[1:] == x.shape[1:]
        if is_image or shape[:1] != (2,) or (len(shape) == 3 and not point.endswith(":input")):
            continue
        try:
            cells = to_nchw(torch.empty(shape, device="meta"), survey.axes.get(point), size).shape[-2:]
        except LayerError:
            continue
        if cells.numel() > 1 and _matters(network, point, x, size):
            return point
    raise LayerError(
        got="a network without a feature map on which the logits depend",
        needed="a layer with spatial extent",
        fix="name the layer",
    )


def _matters(network: Network, point: str, x: Tensor, size: tuple[int, int]) -> bool:
    capture = Capture()
    capture.install(network.model, [point])
    try:
        with undisturbed(network.model, x.device), torch.enable_grad():
            with capture.record([point], on_path=[point]) as recording:
                # Of the structure, not of the present weights: a classifier that starts from 0 has no gradient yet.
                parameters = [(n, p) for n, p in network.model.named_parameters() if p.is_floating_point()]
                stirred = {name: p + 0.02 * torch.randn_like(p) for name, p in parameters}
                logits = network.select(torch.func.functional_call(network.model, stirred, (x[:1].detach().clone(),)))
            features = recording.complete()[point]
            scores = (torch.randn_like(logits) * logits).sum()
            (gradient,) = torch.autograd.grad(scores, features, allow_unused=True)
            axis = network.look(x).axes.get(point)
            return gradient is not None and bool(to_nchw(gradient, axis, size).abs().sum() > 0)
    except LayerError:
        # Overwritten in place behind this point.
        return False
    finally:
        capture.remove()
