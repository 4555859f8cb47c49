"""Errors that say what was wrong, with which input, and what to do about it."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Mapping


class ReciNetError(ValueError):
    """Base class of every error that this package raises on purpose."""


class StructureError(ReciNetError):
    """A structure that the network cannot answer for (the message is the reason)."""


class StructureKindError(StructureError, TypeError):
    """Something that is no structure of any kind that is understood here."""


class InternalError(ReciNetError):
    """A fault of this program or of the machine (its memory) that stands where a structure should.

    Args:
        reason: One line for the row.
        trace: The traceback.
    """

    def __init__(self, reason: str, trace: str = "") -> None:
        super().__init__(reason)
        self.trace = trace


class DeviceLostError(ReciNetError):
    """A GPU that stopped working for this process: nothing it says from now on is an answer."""


class UnknownNameError(ReciNetError):
    """An unknown property, model or dataset name.

    Args:
        kind: What the name was meant to be, e.g. ``"property"``.
        name: The name as the user typed it.
        known: Every accepted name; the nearest are suggested and all are listed.
        aliases: Other accepted spellings and the name that each stands for.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        known: Iterable[str],
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        names = {key: key for key in known} | dict(aliases or {})
        choices = sorted(set(names.values()))
        matches = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        near = list(dict.fromkeys(names[match] for match in matches))
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        listing = f"known: {', '.join(choices)}" if choices else "none are available"
        super().__init__(f"unknown {kind} {name!r}{hint} ({listing})")
        self.kind, self.name, self.suggestions = kind, name, near


def fault_of(error: BaseException) -> str:
    """The traceback of an error that is no judgement of the input, ``""`` of one that is.

    Such an error is a fault of this program, or of the machine (its memory).
    """
    return "" if isinstance(error, ReciNetError) else "".join(traceback.format_exception(error))


def reason_of(error: BaseException) -> str:
    """One line that says what was wrong; other people's errors with their class."""
    text = " ".join(str(error).split())
    if text and isinstance(error, ReciNetError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
