"""Classification in two stages: beside a network's own features those of an encoder that was trained to segment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attribguard.errors import ModelError, ShapeError, TypeMismatchError
from attribguard.models.checks import check_list, check_whole
from attribguard.modes import undisturbed
from attribguard.network import floating_like

__all__ = ["JointClassifier", "joint_classifier"]


class JointClassifier(nn.Module):
    """What :func:`joint_classifier` builds: two backbones, and one linear layer on the features of both.

    Attributes:
        segmentation_encoder: the backbone that was trained to segment.
        classifier: the backbone that is trained to classify.
        head: the linear layer.
        frozen: whether the encoder stays in eval mode whatever :meth:`train` is called with.
    """

    def __init__(self, segmentation_encoder: nn.Module, classifier: nn.Module, head: nn.Linear, frozen: bool) -> None:
        super().__init__()
        self.segmentation_encoder, self.classifier, self.head = segmentation_encoder, classifier, head
        self.frozen = frozen
        if frozen:
            segmentation_encoder.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """From images (N, C, H, W) to logits (N, K)."""
        features = [_features(backbone, x) for backbone in (self.segmentation_encoder, self.classifier)]
        logits: Tensor = self.head(torch.cat(features, 1))
        return logits

    def train(self, mode: bool = True) -> JointClassifier:
        """Set train or eval mode; a frozen encoder stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.segmentation_encoder.eval()
        return self


def joint_classifier(
    segmentation_encoder: nn.Module,
    classifier: nn.Module,
    num_classes: int = 2,
    *,
    freeze: bool = True,
    example_input: Sequence[int] | None = None,
) -> JointClassifier:
    """The second stage of two: classify by the features of two backbones, one of which has been trained to segment.

    Source: Hirata and Okita, "joint learning": a network is trained for segmentation first; its encoder's pooled
    features are concatenated with those of a second backbone, and one linear layer classifies. Their text leaves open
    whether the encoder learns on in the second stage. We freeze it, as the work does that they cite for the method.

    Gradients still flow through a frozen encoder to the image, so that a penalty on input gradients sees both
    backbones. A penalty on layers would compare some that cannot change: for ActDiff name the others,
    ``layers=["classifier.*"]``.

    Args:
        segmentation_encoder: a timm model, best built with ``num_classes=0``, or any network from images to features
            (N, C) or to a map (N, C, h, w), of which the mean is taken. It should be trained: the network that a guard
            with a segmentation head gives back by ``unwrap()``.
        classifier: likewise; from random or pretrained weights.
        num_classes: number of logits, 1 or more.
        freeze: whether the encoder's parameters get no gradients, so that an optimizer leaves them alone, and its
            BatchNorm and dropout stay in eval mode in training.
        example_input: (C, H, W) of an image, for a dry run that finds the numbers of features. timm models tell them.

    Returns:
        The network, from (N, C, H, W) to (N, num_classes). It holds the two that were given.

    Raises:
        TypeMismatchError: if a backbone is no module.
        ModelError: if both are the same, or one does not tell its number of features and there is no example.
        ShapeError: if a backbone gives neither features nor a map, or the example is no shape of an image.
        RangeError: if ``num_classes`` or a number of the example is no whole number of 1 or more.

    Example:
        >>> encoder, classifier = (nn.Conv2d(3, width, 3) for width in (8, 16))
        >>> joint_classifier(encoder, classifier, 2, example_input=(3, 28, 28))(torch.rand(4, 3, 28, 28)).shape
        torch.Size([4, 2])
    """
    check_whole(num_classes=num_classes)
    backbones = {"segmentation_encoder": segmentation_encoder, "classifier": classifier}
    for name, backbone in backbones.items():
        if not isinstance(backbone, nn.Module):
            got = f"a {name} of {type(backbone).__name__}"
            raise TypeMismatchError(got=got, needed="a torch.nn.Module", fix="build it")
    if segmentation_encoder is classifier:
        raise ModelError(got="one network as both backbones", needed="two", fix="copy it: copy.deepcopy(classifier)")
    width = sum(_width(name, backbone, example_input) for name, backbone in backbones.items())
    return JointClassifier(segmentation_encoder, classifier, nn.Linear(width, num_classes), freeze)


def _is_timm(backbone: nn.Module) -> bool:
    return hasattr(backbone, "forward_features") and hasattr(backbone, "forward_head")


def _features(backbone: Any, x: Tensor) -> Tensor:
    if _is_timm(backbone):
        features = backbone.forward_head(backbone.forward_features(x), pre_logits=True)
    else:
        features = backbone(x)
        if isinstance(features, Tensor) and features.dim() == 4:
            features = features.mean((2, 3))
    if not isinstance(features, Tensor) or features.dim() != 2:
        given = f"shape {tuple(features.shape)}" if isinstance(features, Tensor) else f"a {type(features).__name__}"
        raise ShapeError(
            got=f"{given} from a backbone",
            needed="features (N, C) or a map (N, C, h, w)",
            fix="put the backbone into a module that gives them; leave timm its global pooling",
        )
    return features


def _width(name: str, backbone: nn.Module, example: Sequence[int] | None) -> int:
    """The number of features: measured where there is an example, otherwise as timm tells it."""
    if example is None:
        told = getattr(backbone, "head_hidden_size", getattr(backbone, "num_features", None))
        if not (_is_timm(backbone) and isinstance(told, int)):
            raise ModelError(
                got=f"a {name} that does not tell its number of features",
                needed="a timm model, or an example",
                fix="pass example_input=(C, H, W)",
            )
        return told
    check_list(example_input=example)
    if len(example) != 3:
        raise ShapeError(got=f"example_input={example!r}", needed="(C, H, W)", fix="pass the shape of one image")
    like = floating_like(backbone)
    with undisturbed(backbone, like.device):
        return _features(backbone, torch.zeros(1, *example, device=like.device, dtype=like.dtype)).shape[1]
