"""Penalties: one file each."""

from attribguard.penalties.actdiff import ActDiff
from attribguard.penalties.attribution import (
    AttributionPenalty,
    ExpectedGradients,
    GradientTimesInput,
    InputGradient,
    IntegratedGradients,
)
from attribguard.penalties.base import Penalty
from attribguard.penalties.gradcam_rrr import GradCAMRRR
from attribguard.penalties.gradmask import GradMask
from attribguard.penalties.rrr import RRR

__all__ = [
    "RRR",
    "ActDiff",
    "AttributionPenalty",
    "ExpectedGradients",
    "GradCAMRRR",
    "GradMask",
    "GradientTimesInput",
    "InputGradient",
    "IntegratedGradients",
    "Penalty",
]
