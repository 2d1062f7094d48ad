"""Class activation maps from features and the gradient with respect to them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from attribguard.errors import ShapeError, check_choice
from attribguard.functional.norms import at_least_float32

__all__ = [
    "CAM_METHODS",
    "CAM_NORMALIZATIONS",
    "CamMethod",
    "CamNormalization",
    "class_activation_map",
    "gradcam_plus_plus",
    "normalize_map",
]

CamMethod = Literal["gradcam", "hirescam"]
CAM_METHODS: tuple[CamMethod, ...] = ("gradcam", "hirescam")
CamNormalization = Literal["max", "minmax", "none"]
CAM_NORMALIZATIONS: tuple[CamNormalization, ...] = ("max", "minmax", "none")

_EPS = 1e-6


def class_activation_map(features: Tensor, gradient: Tensor, method: CamMethod = "gradcam") -> Tensor:
    r"""Weigh the features by the gradient and sum over the channels. No ReLU, no normalisation.

    .. math::
        \mathrm{GradCAM}_p = \sum_c \Big( \frac{1}{hw} \sum_q \frac{\partial s}{\partial A_{cq}} \Big) A_{cp},
        \qquad \mathrm{HiResCAM}_p = \sum_c \frac{\partial s}{\partial A_{cp}} A_{cp}

    Selvaraju et al.; Draelos and Carin. Averaging the gradient over the map is faithful only where pooling follows it;
    HiResCAM leaves the average out.

    Args:
        features: (N, C, h, w).
        gradient: (N, C, h, w), or (N, C, 1, 1) where it is the same at every place.
        method: ``"gradcam"`` or ``"hirescam"``.

    Returns:
        (N, h, w), signed.

    Raises:
        RangeError: if the method is unknown.
        ShapeError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> features = torch.tensor([[[[1.0, 2.0]]]])
        >>> class_activation_map(features, torch.tensor([[[[0.0, 4.0]]]]))
        tensor([[[2., 4.]]])
        >>> class_activation_map(features, torch.tensor([[[[0.0, 4.0]]]]), "hirescam")
        tensor([[[0., 8.]]])
    """
    check_choice("method", method, CAM_METHODS)
    _check_pair(features, gradient)
    weights = at_least_float32(gradient)
    if method == "gradcam":
        weights = weights.mean((2, 3), keepdim=True)
    return (weights * at_least_float32(features)).sum(1)


def gradcam_plus_plus(features: Tensor, gradient: Tensor) -> Tensor:
    r"""Grad-CAM++: positive gradients only, weighed place by place before they are summed.

    .. math::
        w_c = \sum_p \alpha_{cp} \, \mathrm{relu}(g_{cp}), \qquad
        \alpha_{cp} = \frac{g_{cp}^2}{2 g_{cp}^2 + g_{cp}^3 \sum_q A_{cq}}, \qquad
        g = \frac{\partial s}{\partial A}

    Chattopadhay et al. 2018, Eqs. 10 and 19, which with a score :math:`e^s` takes the higher derivatives as powers of
    :math:`g`; the factor :math:`e^s`, the same for a whole map, is left out.

    Args:
        features: (N, C, h, w).
        gradient: (N, C, h, w), or (N, C, 1, 1) where it is the same at every place.

    Returns:
        (N, h, w), signed; no ReLU, no normalisation.

    Raises:
        ShapeError: if the shapes do not fit.

    Example:
        >>> import torch
        >>> gradcam_plus_plus(torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[1.0, -1.0]]]]))
        tensor([[[0.2500, 0.2500]]])
    """
    _check_pair(features, gradient)
    maps = at_least_float32(features)
    g = at_least_float32(gradient).expand_as(maps)
    below = 2 * g.square() + g.pow(3) * maps.sum((2, 3), keepdim=True)
    # Where the gradient is 0 so is its share; elsewhere the denominator is 0 only by coincidence.
    alpha = torch.where(below == 0, 0, g.square() / torch.where(below == 0, 1, below))
    weights = (alpha * g.relu()).sum((2, 3), keepdim=True)
    return (weights * maps).sum(1)


def _check_pair(features: Tensor, gradient: Tensor) -> None:
    if features.dim() != 4 or gradient.shape not in (features.shape, (*features.shape[:2], 1, 1)):
        raise ShapeError(
            got=f"features of shape {tuple(features.shape)} and a gradient of shape {tuple(gradient.shape)}",
            needed="(N, C, h, w) for both, or (N, C, 1, 1) for the gradient",
            fix="take the gradient with respect to these features",
        )


def normalize_map(cam: Tensor, mode: CamNormalization) -> Tensor:
    """Bring each map to a range of its own.

    Args:
        cam: (N, h, w).
        mode: ``"max"`` divides by the largest value (plus 1e-6), which leaves 0 at 0 and suits maps of 0 or more;
            ``"minmax"`` stretches to [0, 1], which is blind to the scale and turns negative evidence into 0 and no
            evidence into something above it; ``"none"``.

    Returns:
        (N, h, w).

    Raises:
        RangeError: if the mode is unknown.

    Example:
        >>> import torch
        >>> normalize_map(torch.tensor([[[0.0, 1.0, 4.0]]]), "max").round(decimals=3)
        tensor([[[0.0000, 0.2500, 1.0000]]])
    """
    check_choice("normalize", mode, CAM_NORMALIZATIONS)
    if mode == "none":
        return cam
    high = cam.amax((1, 2), keepdim=True)
    if mode == "max":
        return cam / (high + _EPS)
    low = cam.amin((1, 2), keepdim=True)
    return (cam - low) / (high - low + _EPS)
