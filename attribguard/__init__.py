"""Image classifiers that are right for the right reasons: trained with attributions, and tested for them."""

from attribguard import data, errors, functional, losses, masks
from attribguard.corruption import Corruption, corrupt
from attribguard.errors import AttribGuardError
from attribguard.guard import Guard
from attribguard.objective import GuardOutput
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
    "GradientTimesInput",
    "Guard",
    "GuardOutput",
    "InputGradient",
    "IntegratedGradients",
    "Penalty",
    "Trace",
    "corrupt",
    "data",
    "errors",
    "functional",
    "losses",
    "masks",
    "wrap",
]
