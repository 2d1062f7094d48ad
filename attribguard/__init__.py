"""Image classifiers that are right for the right reasons: trained with attributions, and tested for them."""

import importlib
from typing import TYPE_CHECKING, Any

from attribguard import checkpoint, data, errors, functional, losses, masks
from attribguard.attribution import cam, from_captum, saliency
from attribguard.batch import Batch
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
from attribguard.trace import Trace
from attribguard.weighting import GradNorm, Uncertainty, Weighting
from attribguard.wrapping import wrap

if TYPE_CHECKING:
    from attribguard import probes
    from attribguard.auditing import AuditReport, audit

__version__ = "0.1.0"

__all__ = [
    "RRR",
    "ActDiff",
    "AttribGuardError",
    "AttributionPenalty",
    "AuditReport",
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
    "audit",
    "cam",
    "checkpoint",
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


def __getattr__(name: str) -> Any:
    # torchmetrics and scipy.stats take two seconds to import, which a training script need not wait for.
    if name == "probes":
        return importlib.import_module("attribguard.probes")
    if name in ("AuditReport", "audit"):
        return getattr(importlib.import_module("attribguard.auditing"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
