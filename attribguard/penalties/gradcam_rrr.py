"""RRR on class activation maps: no evidence from where the network must not look."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from attribguard.errors import LayerError, check_choice
from attribguard.functional.cam import (
    CAM_METHODS,
    CAM_NORMALIZATIONS,
    CamMethod,
    CamNormalization,
    class_activation_map,
    normalize_map,
)
from attribguard.functional.rrr import gradcam_rrr
from attribguard.functional.scores import LINEAR_SCORES, logit_weights
from attribguard.layers import AUTO, LAST
from attribguard.masks import check_pixels, dilate, resize
from attribguard.penalties.base import Penalty
from attribguard.trace import Trace

__all__ = ["GradCAMRRR"]

CamScore = Literal["target", "predicted", "projection"]
# The share of annotated images whose map is 0 everywhere from which on the penalty counts as blind.
_BLIND = 0.8


class GradCAMRRR(Penalty):
    r"""Squared class activation map outside the mask.

    .. math::
        L_E = \sum_p \big( (1 - m_p) \cdot \mathrm{norm}(\mathrm{CAM}(x))_p \big)^2

    Hagos et al., Eq. 2, which leaves class, layer and norm open. Departures from the public code, which takes the
    predicted class, the last convolution before its activation, no ReLU and min-max: the true class, the last map
    after its activation, ReLU, division by the maximum. Channel weights are differentiated too (constants there, so
    that the classifier gets no gradient), and modes stay as they are.

    Costs next to nothing: the graph of the inner gradient reaches from the logits down to the layer, and where the
    classifier is global pooling or flattening and one linear layer no inner backward pass runs at all.

    **It can be blind.** Averaged gradients (``cam="gradcam"``) are faithful only where pooling follows the map, and the
    true class's map does not show what speaks against *other* classes. ``cam="hirescam", score="projection"`` sees
    every way in which a place moves any logit, and is the form that works on decoyed images. The penalty warns once
    when the map is 0 on nearly all annotated images.

    Args:
        weight: 0 or more.
        layer: ``"auto"``: the last map over the image on which the logits depend; otherwise a module's name.
        cam: ``"gradcam"`` or ``"hirescam"``, see :func:`attribguard.functional.class_activation_map`.
        score: ``"target"``: the true class's logit (labels: each logit towards its label); ``"predicted"``: the largest
            (one output: towards its sign; labels: each towards its sign); ``"projection"``: the logits times a fresh
            normal vector for each sample and step; the map is then signed and not normalised, whatever ``relu`` and
            ``normalize`` say.
        normalize: ``"max"``, ``"minmax"`` or ``"none"``, see :func:`attribguard.functional.normalize_map`.
        relu: whether only evidence for the score counts.
        constant_weights: whether to hold the channel weights constant, as the public code does.
        dilate: pixels by which the *irrelevant* region grows first, the reverse of other penalties: a convolution
            smears what it sees there over a ring of its own radius, from which the network could go on reading it.
        name: the term's name, ``"gradcamrrr"`` by default.

    Raises:
        RangeError: if an argument is out of its range.

    Example:
        >>> GradCAMRRR(100.0, cam="hirescam", score="projection", normalize="none", dilate=1).relu
        False
    """

    needs_layer_gradient = True

    def __init__(
        self,
        weight: float,
        *,
        layer: str = AUTO,
        cam: CamMethod = "gradcam",
        score: CamScore = "target",
        normalize: CamNormalization = "max",
        relu: bool = True,
        constant_weights: bool = False,
        dilate: int = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight, layers=LAST if layer == AUTO else (layer,), name=name)
        for what, value, known in (
            ("cam", cam, CAM_METHODS),
            ("score", score, LINEAR_SCORES),
            ("normalize", normalize, CAM_NORMALIZATIONS),
        ):
            check_choice(what, value, known)
        self.cam, self.score, self.constant_weights = cam, score, constant_weights
        self.relu = relu and score != "projection"
        self.normalize: CamNormalization = "none" if score == "projection" else normalize
        self.dilate = check_pixels(dilate)
        self._warned = False

    def forward(self, trace: Trace) -> Tensor:
        """The penalty of each sample, (N,)."""
        features = trace.features[trace.layers[0]]
        if features.shape[-2:].numel() == 1:
            raise LayerError(
                got=f"features of shape {tuple(features.shape)} at {self.layers!r}",
                needed="a map with spatial extent",
                fix="name an earlier layer",
            )
        gradient = trace.layer_gradient(logit_weights(self.score, trace.logits, trace.batch.target))
        cam = class_activation_map(features, gradient.detach() if self.constant_weights else gradient, self.cam)
        cam = cam.relu() if self.relu else cam
        if not (self._warned or torch.compiler.is_compiling()):
            self._warn_if_blind(cam, trace.batch.annotated)
        irrelevant = dilate(1 - trace.batch.mask, self.dilate)
        return gradcam_rrr(normalize_map(cam, self.normalize), 1 - resize(irrelevant, (cam.shape[1], cam.shape[2])))

    def _warn_if_blind(self, cam: Tensor, annotated: Tensor) -> None:
        empty = (cam.detach() == 0).flatten(1).all(1)[annotated].float()
        if len(empty) and bool(empty.mean() >= _BLIND):
            self._warned = True
            warnings.warn(
                f"{self.name!r} is blind: its map is 0 everywhere on {empty.mean():.0%} of the annotated images; "
                'use GradCAMRRR(cam="hirescam", score="projection")',
                stacklevel=2,
            )
