"""One command, one page: whether a network is right for the right reasons."""

from attribguard.auditing.report import AuditReport
from attribguard.auditing.run import audit

__all__ = ["AuditReport", "audit"]
