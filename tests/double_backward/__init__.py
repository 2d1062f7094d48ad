"""Tests of attribguard.double_backward."""
