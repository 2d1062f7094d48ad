"""Where a network looks: the input gradient of its contrast, and how much of it lies inside a region."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attribguard.functional.scores import contrast

__all__ = ["saliency", "share_inside"]


def saliency(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    r"""The saliency of Viviano et al.: :math:`|\partial |\hat y_1 - \hat y_0| / \partial x|`.

    Args:
        model: images to logits (N, 2), in eval mode, so that images do not influence each other.
        images: (N, 1, H, W).
        targets: (N,) class indices.

    Returns:
        (N, 1, H, W), 0 or more, without a graph.
    """
    images = images.detach().clone().requires_grad_()
    # The sum's gradient holds each image's own, because no image influences another's logits.
    (gradient,) = torch.autograd.grad(contrast(model(images), targets).sum(), images)
    return gradient.abs()


def share_inside(maps: Tensor, region: Tensor) -> Tensor:
    """Share of each map's sum that lies inside a region.

    Args:
        maps: (N, 1, H, W), 0 or more.
        region: (N, 1, H, W), 1 inside and 0 outside.

    Returns:
        (N,), in [0, 1]; 0 for a map that is 0 everywhere, which looks at nothing.

    Example:
        >>> share_inside(torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]]]]))
        tensor([0.7500])
    """
    inside, outside = ((maps * part).flatten(1).sum(1) for part in (region, 1 - region))
    whole = inside + outside
    return torch.where(whole > 0, inside / whole, 0)
