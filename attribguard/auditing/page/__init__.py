"""The page: one HTML file with everything in it."""

from attribguard.auditing.page.render import render

__all__ = ["render"]
