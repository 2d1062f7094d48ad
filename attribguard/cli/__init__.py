"""The command line, each command in a file of its own."""

from attribguard.cli.app import app, main

__all__ = ["app", "main"]
