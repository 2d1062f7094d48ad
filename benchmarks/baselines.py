"""The published training steps, as their papers describe them and as well tuned as ours, in plain PyTorch.

Each penalty is a function of its own that takes the network and the batch, as in the published codes. What a step has
already computed is handed on where those codes do so too: the clean pass to ActDiff, its logits to the penalties on
input gradients. No row is left out, as none of them knows rows without annotation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

_EPS = 1e-6  # of the public code's min-max norm

Shuffle = Callable[[Tensor, Tensor], Tensor]


def shuffle_outside(x: Tensor, mask: Tensor) -> Tensor:
    """Viviano et al., Section 3: the pixels outside each image's mask change places, all channels together."""
    shuffled = x.clone()
    for image, original, inside in zip(shuffled.flatten(2), x.flatten(2), mask.flatten(1), strict=True):
        outside = (inside < 0.5).nonzero()[:, 0]
        image[:, outside] = original[:, outside[torch.randperm(len(outside), device=x.device)]]
    return shuffled


@contextmanager
def entering_relus(model: nn.Module) -> Iterator[list[Tensor]]:
    """What enters the network's ReLUs, pass after pass, in order; they must not work in place."""
    found: list[Tensor] = []
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    handles = [relu.register_forward_pre_hook(lambda module, args: found.append(args[0])) for relu in relus]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def actdiff(clean: Sequence[Tensor], corrupted: Sequence[Tensor]) -> Tensor:
    """Viviano et al., Eq. 1: the mean over layers of the lengths of the differences, (N,)."""
    lengths = [torch.linalg.vector_norm((a - b).flatten(1), dim=1) for a, b in zip(clean, corrupted, strict=True)]
    return torch.stack(lengths).mean(0)


def gradmask(logits: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """Viviano et al., Eq. 2: the length of the gradient of the logits' distance outside the mask, (N,)."""
    score = (logits[:, 1] - logits[:, 0]).abs().sum()
    (gradient,) = torch.autograd.grad(score, x, create_graph=True)
    return torch.linalg.vector_norm((gradient * (1 - mask)).flatten(1), dim=1)


def rrr(logits: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """Ross et al., Eq. 2: the squared gradient of the summed log-probabilities outside the mask, (N,)."""
    (gradient,) = torch.autograd.grad(F.log_softmax(logits, 1).sum(), x, create_graph=True)
    return (gradient * (1 - mask)).square().flatten(1).sum(1)


def gradcam_rrr(model: nn.Module, layer: nn.Module, logits: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """Hagos et al., Eq. 2, as the public code has it: captum's map of the predicted class, min-max, squared, (N,).

    captum runs the network again, and its channel weights are constants.
    """
    cam = LayerGradCam(model, layer).attribute(x, target=logits.argmax(1))[:, 0]
    low, high = cam.amin((1, 2), keepdim=True), cam.amax((1, 2), keepdim=True)
    outside = 1 - F.interpolate(mask, cam.shape[1:], mode="area")[:, 0]
    return ((cam - low) / (high - low + _EPS) * outside).square().flatten(1).sum(1)


def plain_step(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Cross entropy and its gradients."""
    F.cross_entropy(model(x), y).backward()


def published_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    mask: Tensor,
    penalties: Sequence[str],
    *,
    layer: nn.Module | None = None,
    shuffle: Shuffle = shuffle_outside,
    further: Callable[[], Tensor] | None = None,
) -> None:
    """Cross entropy and some of the penalties, each with a weight of 1, and the gradients of their sum.

    Args:
        model: the network.
        x: images.
        y: classes.
        mask: 1 where relevant.
        penalties: of ``"actdiff"``, ``"gradmask"``, ``"rrr"`` and ``"gradcamrrr"``.
        layer: of Grad-CAM.
        shuffle: the corruption.
        further: one more loss, such as a decoder's.
    """
    if {"gradmask", "rrr"} & set(penalties):
        x = x.detach().requires_grad_()
    with entering_relus(model) as entered:
        logits = model(x)
        clean = list(entered)
        entered.clear()
        loss = F.cross_entropy(logits, y)
        if "actdiff" in penalties:
            model(shuffle(x.detach(), mask))
            loss = loss + actdiff(clean, entered).mean()
    if "gradmask" in penalties:
        loss = loss + gradmask(logits, x, mask).mean()
    if "rrr" in penalties:
        loss = loss + rrr(logits, x, mask).mean()
    if "gradcamrrr" in penalties:
        assert layer is not None
        loss = loss + gradcam_rrr(model, layer, logits, x.detach(), mask).mean()
    if further is not None:
        loss = loss + further()
    loss.backward()
