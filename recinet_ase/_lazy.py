"""Packages that import their parts when these are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def exports(
    package: str, modules: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` (PEP 562) of a package.

    Args:
        package: Its name.
        modules: The module of each name that it exports, relative to the package or in full.
    """

    def get(name: str) -> Any:
        if name in modules:
            where = modules[name]
            module = where if where.startswith("recinet_ase.") else f"{package}.{where}"
            return getattr(import_module(module), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def listing() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return get, listing
