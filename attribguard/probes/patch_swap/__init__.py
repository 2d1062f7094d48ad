"""Find the patch of an image that a trained network cannot do without, by swapping patches between images."""

from attribguard.probes.patch_swap.class_scan import ClassScan, ClassSuspect, PairScan
from attribguard.probes.patch_swap.pairwise_scan import scan_classes
from attribguard.probes.patch_swap.patch_grid import PatchGrid
from attribguard.probes.patch_swap.scan import patch_swap_scan
from attribguard.probes.patch_swap.scan_result import ScanResult

__all__ = ["ClassScan", "ClassSuspect", "PairScan", "PatchGrid", "ScanResult", "patch_swap_scan", "scan_classes"]
