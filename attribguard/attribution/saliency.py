"""Input gradients as heat maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attribguard.attribution.model import chosen_classes, model_behind
from attribguard.functional.scores import Score, named_score
from attribguard.modes import undisturbed

__all__ = ["saliency"]


def saliency(
    model: nn.Module, x: Tensor, target: Tensor | int | None = None, *, score: str | Score = "contrast"
) -> Tensor:
    r"""Absolute gradient of a score with respect to the image, the largest over the channels.

    .. math:: a_p = \max_c \left| \frac{\partial s}{\partial x_{cp}} \right|

    Simonyan et al. 2014. The default score is what GradMask penalises (Viviano et al., Eq. 2):
    :math:`|\hat y_1 - \hat y_0|`, with more classes the target's logit against the best other, with one output
    :math:`|z|`. The model runs in eval mode, and is afterwards as it was.

    Args:
        model: images to logits (N, K); a guard is looked behind.
        x: (N, C, H, W).
        target: (N,) class indices, one for all, or ``None``: the predicted.
        score: a name or callable, see :mod:`attribguard.functional.scores`.

    Returns:
        (N, H, W), 0 or more, without a graph.

    Raises:
        AttribGuardError: if the target does not fit, or the score is unknown.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> saliency(model, torch.rand(3, 1, 2, 2)).shape
        torch.Size([3, 2, 2])
    """
    model, function = model_behind(model), named_score(score)
    with undisturbed(model, x.device), torch.enable_grad():
        images = x.detach().clone().requires_grad_()
        logits = model(images)
        # The sum's gradient holds each image's own, because in eval mode no image influences another's logits.
        scores = function(logits, chosen_classes(logits, target)).sum()
        (gradient,) = torch.autograd.grad(scores, images)
    return gradient.abs().amax(1)
