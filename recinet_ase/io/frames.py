"""ASE's notation for some structures of a file: ``relax.traj@-1``, ``frames.extxyz@::10``."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from recinet_ase.errors import ReciNetError

T = TypeVar("T")

_INDEX = re.compile(r"[+-]?\d+").fullmatch
_SLICE = re.compile(r"([+-]?\d+)?:([+-]?\d+)?(?::([+-]?\d+)?)?").fullmatch


@dataclass(frozen=True)
class Frames:
    """Which structures of a file are read.

    Attributes:
        text: As the user wrote it, without the ``@``.
        start: As in a slice.
        stop: As in a slice.
        step: As in a slice, not zero.
        single: Whether one structure is named, not a range.
    """

    text: str = field(compare=False)
    start: int | None
    stop: int | None
    step: int = 1
    single: bool = False

    def chosen(self, stream: Iterable[T]) -> Iterator[tuple[int, T]]:
        """The chosen ones and their indices.

        What counts from the end holds as many as that in memory; a negative step all.
        """
        numbered = enumerate(stream)
        start, stop = self.start or 0, self.stop
        if self.step < 0:
            yield from list(numbered)[self.start : stop : self.step]
        elif start < 0:
            last = deque(numbered, maxlen=-start)
            total = last[-1][0] + 1 if last else 0
            end = slice(stop).indices(total)[1]
            yield from islice((pair for pair in last if pair[0] < end), 0, None, self.step)
        elif stop is not None and stop < 0:
            ahead: deque[tuple[int, T]] = deque()
            for pair in numbered:
                ahead.append(pair)
                if len(ahead) > -stop:
                    index, item = ahead.popleft()
                    if index >= start and (index - start) % self.step == 0:
                        yield index, item
        else:
            yield from islice(numbered, start, stop, self.step)

    def count(self, total: int) -> int:
        """How many rows a file with so many structures gives (none are one error)."""
        return max(1, len(range(total)[self.start : self.stop : self.step]))


def split_index(pattern: str) -> tuple[str, str] | None:
    """File and index of ``file@index``, None where there is no ``@`` in its name."""
    path, at, text = pattern.rpartition("@")
    return (path, text) if at and path and "/" not in text else None


def parse_index(pattern: str, text: str) -> Frames:
    """The index after an ``@``.

    Args:
        pattern: All that the user wrote, for the error.
        text: The index.

    Raises:
        ReciNetError: If it is none.
    """
    match = _SLICE(text)
    parts: list[int | None] = [int(text)] if _INDEX(text) else [sys.maxsize]
    if match is not None:
        parts = [None if n is None else int(n) for n in match.groups()]
    if any(n is not None and abs(n) >= sys.maxsize for n in parts) or parts[2:] == [0]:
        raise ReciNetError(
            f"{pattern}: {text!r} is no index of structures in a file; examples: @-1 (the last), "
            "@5, @2:10, @::10 (rows of databases are chosen with --select)"
        )
    if len(parts) == 1:
        (number,) = parts
        assert number is not None
        return Frames(text, number, None if number == -1 else number + 1, single=True)
    start, stop, step = parts
    return Frames(text, start, stop, 1 if step is None else step)
