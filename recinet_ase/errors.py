"""Errors that say what was wrong, with which input, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReciNetError(ValueError):
    """Base class of every error that this package raises on purpose."""


class StructureError(ReciNetError):
    """A structure that the network cannot answer for (the message is the reason)."""


class UnknownNameError(ReciNetError):
    """An unknown property, model or dataset name.

    Args:
        kind: What the name was meant to be, e.g. ``"property"``.
        name: The name as the user typed it.
        known: Every accepted name; the nearest ones are suggested.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        choices = sorted(set(known))
        near = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
        listing = f"known: {', '.join(choices)}" if choices else "none are available"
        super().__init__(f"unknown {kind} {name!r}; {hint + ' ' if hint else ''}({listing})")
        self.kind, self.name, self.suggestions = kind, name, near
