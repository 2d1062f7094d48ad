"""Readers of medical images: CT series in DICOM, and the volumes of the Medical Segmentation Decathlon."""

from attribguard.data.medical.decathlon import MedicalDecathlon
from attribguard.data.medical.slices import CtSlices, read_slices
from attribguard.data.medical.window import ct_window

__all__ = ["CtSlices", "MedicalDecathlon", "ct_window", "read_slices"]
