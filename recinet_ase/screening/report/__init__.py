"""A screen as one html page that needs nothing but a browser."""

from __future__ import annotations

from recinet_ase.screening.report.page import write_report

__all__ = ["write_report"]
