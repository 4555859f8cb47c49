"""A screen as one html page that needs nothing but a browser."""

from __future__ import annotations

from recinet_ase.screening.output.report.page import report_identity, write_report

__all__ = ["report_identity", "write_report"]
