"""Drawn data sets with known truth; each item is a dict that `torch.utils.data.default_collate` joins."""

from attribguard.data.phantoms.hematoma import HEMATOMA_SIGNS, HematomaPhantom
from attribguard.data.phantoms.lesions import LESIONS, LesionPhantom
from attribguard.data.phantoms.organs import OrganPhantom
from attribguard.data.phantoms.sites import SitesPhantom

__all__ = ["HEMATOMA_SIGNS", "LESIONS", "HematomaPhantom", "LesionPhantom", "OrganPhantom", "SitesPhantom"]
