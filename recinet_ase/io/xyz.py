"""(Extended) xyz, frame by frame: a broken one costs no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from itertools import count as counter
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.io.base import Found, counted_if_small, each_alone
from recinet_ase.io.compression import open_text
from recinet_ase.io.entries import Source

if TYPE_CHECKING:
    from ase import Atoms

_MAXIMUM_ATOMS = 1_000_000
"""A frame that claims more is a wrong count, which would swallow the rest of the file."""

_INTEGER = re.compile(r"\s*[+-]?\d+\s*$").match
_NUMBER = re.compile(r"[+-]?(\d|\.\d|nan|inf)", re.IGNORECASE).match


def items(source: Source) -> Iterator[Any]:
    """The texts of the frames."""
    with open_text(source.path) as handle:
        yield from _xyz_frames(handle)


def read(source: Source, items: Sequence[str]) -> Iterator[Found]:
    """Each frame on its own."""
    return each_alone(_parse, items)


def count(source: Source) -> int | None:
    """Counted by reading a small file, unknown for others."""
    return counted_if_small(source, items)


def _parse(text: str) -> Atoms:
    """The one structure of a frame's text."""
    import ase.io

    try:
        frames = ase.io.read(StringIO(text), index=":", format="extxyz")
    except KeyError as error:
        raise StructureError(
            f"the extxyz text has an atom {str(error.args[0])[:40]!r}, which is no element"
        ) from None
    if len(frames) != 1:
        raise ReciNetError(f"the text holds {'several' if frames else 'no'} structures, not one")
    return frames[0]


class _Lines:
    """Lines with a look at the next one."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.next: str | None = next(self._lines, None)

    def take(self) -> str:
        line, self.next = self.next, next(self._lines, None)
        return line or ""

    def skip(self, unless: Callable[[str], Any]) -> None:
        while self.next is not None and not unless(self.next):
            self.take()


def _is_atom(line: str) -> bool:
    """Whether a line looks like an atom: three numbers and something else, in any order."""
    words = line.split()
    return len(words) >= 4 and sum(bool(_NUMBER(word)) for word in words) >= 3


def _skip_frame(lines: _Lines) -> None:
    """Go on to what may be the next frame: after the atoms, or to a line that is a number."""
    if lines.next is not None and not _INTEGER(lines.next):
        lines.take()
    atoms = False
    while lines.next is not None and _is_atom(lines.next):
        lines.take()
        atoms = True
    if not atoms:
        lines.skip(unless=_INTEGER)


def _xyz_frames(handle: Iterable[str]) -> Iterator[str | Exception]:
    """The frames of an xyz file, by their atom counts.

    A wrong count costs its own frame: a line that is a number alone starts the next one.
    """
    lines = _Lines(handle)
    for number in counter(1):
        lines.skip(unless=str.strip)  # blank lines end the file, or stand between frames
        if lines.next is None:
            return
        head = lines.take()
        word = head.strip()
        if not (word.isascii() and word.isdecimal() and int(word[:9]) <= _MAXIMUM_ATOMS):
            _skip_frame(lines)
            rest = "; the rest of the file was not read" if lines.next is None else ""
            yield ReciNetError(
                f"line {word[:40]!r} (frame {number}) should be a number of atoms{rest}"
            )
            continue
        body = [lines.take()]
        while len(body) <= int(word) and lines.next is not None and not _INTEGER(lines.next):
            body.append(lines.take())
        atoms = len(body) - 1
        while lines.next is not None and _is_atom(lines.next):
            lines.take()
            atoms += 1
        if atoms == int(word):
            yield head + "".join(body)
        else:
            yield ReciNetError(f"frame {number} claims {word} atoms and has {atoms} lines of them")
