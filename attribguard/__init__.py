"""Image classifiers that are right for the right reasons: trained with attributions, and tested for them."""

from attribguard import data, errors, functional, masks
from attribguard.corruption import Corruption, corrupt
from attribguard.errors import AttribGuardError
from attribguard.guard import Guard
from attribguard.objective import GuardOutput
from attribguard.penalties import ActDiff, Penalty
from attribguard.trace import Batch, Trace
from attribguard.wrapping import wrap

__version__ = "0.1.0"

__all__ = [
    "ActDiff",
    "AttribGuardError",
    "Batch",
    "Corruption",
    "Guard",
    "GuardOutput",
    "Penalty",
    "Trace",
    "corrupt",
    "data",
    "errors",
    "functional",
    "masks",
    "wrap",
]
