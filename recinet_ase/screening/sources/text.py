"""CIF block by block, (extended) xyz frame by frame: a broken one costs no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from itertools import count as counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError
from recinet_ase.screening.entries import Source
from recinet_ase.screening.sources import Found
from recinet_ase.screening.sources.opening import open_text

if TYPE_CHECKING:
    from ase import Atoms

_MAXIMUM_ATOMS = 1_000_000
"""A frame that claims more is a wrong count, which would swallow the rest of the file."""

_SMALL = 1 << 20
_INTEGER = re.compile(r"\s*[+-]?\d+\s*$").match
_ATOM = re.compile(r"\s*\w+(\s+[+-]?(\d|\.\d|nan|inf)\S*){3}", re.IGNORECASE).match


def items(source: Source) -> Iterator[Any]:
    """The texts of the blocks or frames."""
    split = _cif_blocks if source.kind == "cif" else _xyz_frames
    with open_text(source.path) as handle:
        yield from split(handle)


def read(source: Source, items: Sequence[str]) -> Iterator[Found]:
    """Each text on its own."""
    for text in items:
        atoms = parse_one(text, source.kind)
        yield Found(None, atoms, {} if isinstance(atoms, Exception) else atoms.info)


def count(source: Source) -> int | None:
    """Counted by reading a small file, unknown for others."""
    try:
        if Path(source.path).stat().st_size > _SMALL:
            return None
        return sum(1 for _ in items(source)) or 1
    except Exception:  # it becomes an entry with its error
        return None


def parse(text: str, kind: str) -> list[Atoms]:
    """The structures of a text in one of ASE's text formats.

    Raises:
        Exception: Whatever ASE meets.
    """
    import ase.io

    return ase.io.read(StringIO(text), index=":", format=kind)


def parse_one(text: str, kind: str) -> Atoms | Exception:
    """The one structure of a text, or why there is none."""
    try:
        found = parse(text, kind)
    except Exception as error:
        return error
    if len(found) != 1:
        return ReciNetError(f"the text holds {'several' if found else 'no'} structures, not one")
    return found[0]


def _cif_blocks(lines: Iterable[str]) -> Iterator[str | Exception]:
    """The data blocks of a CIF that hold a crystal, or should."""
    block: list[str] = []
    for line in lines:
        if line[:5].lower() == "data_" and block:
            yield from _with_crystal(block)
            block = []
        block.append(line)
    yield from _with_crystal(block)


def _with_crystal(lines: list[str]) -> Iterator[str | Exception]:
    text = "".join(lines)
    low = text.lower()
    if "_atom_site" in low:
        yield text
    elif lines and lines[0][:5].lower() == "data_":
        rest = [line for line in lines[1:] if line.strip() and not line.startswith("#")]
        name = lines[0].split()[0][5:45]
        if "_cell_length" in low or "_symmetry" in low or "_space_group" in low or not rest:
            what = "has no atoms" if rest else "is empty"
            yield ReciNetError(f"CIF block {name!r} {what}")
        # Any other block is text about a publication.


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
            lines.skip(unless=_INTEGER)
            rest = "; the rest of the file was not read" if lines.next is None else ""
            yield ReciNetError(
                f"line {word[:40]!r} (frame {number}) should be a number of atoms{rest}"
            )
            continue
        body = [lines.take()]
        while len(body) <= int(word) and lines.next is not None and not _INTEGER(lines.next):
            body.append(lines.take())
        found = len(body) - 1
        while lines.next is not None and _ATOM(lines.next):
            lines.take()
            found += 1
        if found == int(word):
            yield head + "".join(body)
        else:
            yield ReciNetError(f"frame {number} claims {word} atoms and has {found} lines of them")
