"""Image classifiers that are right for the right reasons: trained with attributions, and tested for them."""

from attribguard import data, errors, functional, losses, masks, probes
from attribguard.attribution import cam, from_captum, saliency
from attribguard.corruption import Corruption, corrupt
from attribguard.errors import AttribGuardError
from attribguard.guard import Guard
from attribguard.heads import Head, ReconstructionHead, SegmentationHead
from attribguard.objective import GuardOutput, Prediction
from attribguard.penalties import (
    RRR,
    ActDiff,
    AttributionPenalty,
    ExpectedGradients,
    GradCAMRRR,
    GradientTimesInput,
    GradMask,
    InputGradient,
    IntegratedGradients,
    Penalty,
)
from attribguard.step import Batch
from attribguard.trace import Trace
from attribguard.weighting import GradNorm, Uncertainty, Weighting
from attribguard.wrapping import wrap

__version__ = "0.1.0"

__all__ = [
    "RRR",
    "ActDiff",
    "AttribGuardError",
    "AttributionPenalty",
    "Batch",
    "Corruption",
    "ExpectedGradients",
    "GradCAMRRR",
    "GradMask",
    "GradNorm",
    "GradientTimesInput",
    "Guard",
    "GuardOutput",
    "Head",
    "InputGradient",
    "IntegratedGradients",
    "Penalty",
    "Prediction",
    "ReconstructionHead",
    "SegmentationHead",
    "Trace",
    "Uncertainty",
    "Weighting",
    "cam",
    "corrupt",
    "data",
    "errors",
    "from_captum",
    "functional",
    "losses",
    "masks",
    "probes",
    "saliency",
    "wrap",
]
