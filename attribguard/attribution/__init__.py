"""Heat maps of a trained network over its images: (N, H, W), signed or not as the method says, never normalised."""

from attribguard.attribution.cam import cam
from attribguard.attribution.captum import from_captum
from attribguard.attribution.model import Attributor
from attribguard.attribution.saliency import saliency

__all__ = ["Attributor", "cam", "from_captum", "saliency"]
