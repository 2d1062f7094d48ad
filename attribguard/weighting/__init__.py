"""Weights that adapt while a guard is trained."""

from attribguard.weighting.base import Weighting
from attribguard.weighting.gradnorm import GradNorm
from attribguard.weighting.uncertainty import Uncertainty

__all__ = ["GradNorm", "Uncertainty", "Weighting"]
