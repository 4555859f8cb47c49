"""The version of the package: no other module is above this one."""

from __future__ import annotations

__version__ = "0.1.0"
