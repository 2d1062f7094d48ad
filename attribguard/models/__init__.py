"""Reference networks, small enough to train on a CPU; built with torch alone, so that any of them can be guarded."""

from attribguard.models.actdiff_cnn import actdiff_cnn

__all__ = ["actdiff_cnn"]
