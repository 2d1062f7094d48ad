"""What a trained network has learned, measured without training it."""

from attribguard.probes.activation_quantile import ActivationQuantile
from attribguard.probes.compare import Comparison, compare
from attribguard.probes.concept_count import ConceptCount
from attribguard.probes.concept_summary import ConceptSummary
from attribguard.probes.gradient_cosine import GradientCosine
from attribguard.probes.localisation import EnergyInside, IoBB, IoR, PointingGame, SoftIoBB, SoftIoR
from attribguard.probes.localisation_metric import LocalisationMetric
from attribguard.probes.patch_swap import ClassScan, ScanResult, patch_swap_scan, scan_classes
from attribguard.probes.task_similarity import TaskSimilarity, task_similarity
from attribguard.probes.unit_alignment import UnitAlignment

__all__ = [
    "ActivationQuantile",
    "ClassScan",
    "Comparison",
    "ConceptCount",
    "ConceptSummary",
    "EnergyInside",
    "GradientCosine",
    "IoBB",
    "IoR",
    "LocalisationMetric",
    "PointingGame",
    "ScanResult",
    "SoftIoBB",
    "SoftIoR",
    "TaskSimilarity",
    "UnitAlignment",
    "compare",
    "patch_swap_scan",
    "scan_classes",
    "task_similarity",
]
