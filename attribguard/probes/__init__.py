"""What a trained network has learned, measured without training it."""

from attribguard.probes.compare import Comparison, compare
from attribguard.probes.gradient_cosine import GradientCosine
from attribguard.probes.localisation import EnergyInside, IoBB, IoR, PointingGame, SoftIoBB, SoftIoR
from attribguard.probes.localisation_metric import LocalisationMetric
from attribguard.probes.patch_swap import ClassScan, ScanResult, patch_swap_scan, scan_classes
from attribguard.probes.task_similarity import TaskSimilarity, task_similarity

__all__ = [
    "ClassScan",
    "Comparison",
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
    "compare",
    "patch_swap_scan",
    "scan_classes",
    "task_similarity",
]
