"""CIF block by block, (extended) xyz frame by frame: a broken one costs no other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from itertools import count as counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.graph.adapters import require_ordered
from recinet_ase.io import Found
from recinet_ase.io.entries import Source
from recinet_ase.io.opening import open_text

if TYPE_CHECKING:
    from ase import Atoms

_MAXIMUM_ATOMS = 1_000_000
"""A frame that claims more is a wrong count, which would swallow the rest of the file."""

_SMALL = 1 << 20
_FORMULA_TOLERANCE = 0.01  # of all atoms, for formulas with rounded numbers
_FORMULA = re.compile(r"^_chemical_formula_sum[ \t]+(\S.*)$", re.MULTILINE | re.IGNORECASE)
_UNITS = re.compile(r"^_cell_formula_units_Z[ \t]+(\d*\.?\d+)", re.MULTILINE | re.IGNORECASE)
_DATA = re.compile(r"^\s*data_", re.MULTILINE | re.IGNORECASE).search
_PUBLICATION = ("_publ_", "_journal_", "_audit_", "_citation_")
"""Keys of blocks that describe a publication: no crystal is missing there."""

_INTEGER = re.compile(r"\s*[+-]?\d+\s*$").match
_NUMBER = re.compile(r"[+-]?(\d|\.\d|nan|inf)", re.IGNORECASE).match


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
    if kind == "cif" and not _DATA(text):
        return StructureError("the text is no CIF: it has no line that begins with data_")
    try:
        found = parse(text, kind)
        if len(found) != 1:
            name = "the CIF" if kind == "cif" else "the text"
            number = "several" if found else "no"
            return ReciNetError(f"{name} holds {number} structures, not one")
        if kind == "cif":
            _check_cif(text, found[0])
    except Exception as error:
        return _explained(error, kind)
    return found[0]


def _explained(error: Exception, kind: str) -> Exception:
    """ASE's bare exceptions in words."""
    if isinstance(error, KeyError) and error.args:
        key = str(error.args[0])[:40]
        what = (
            f"lacks {key}" if key.startswith("_") else f"has an atom {key!r}, which is no element"
        )
        return StructureError(f"the {kind} text {what}")
    if kind == "cif" and isinstance(error, TypeError):
        return StructureError("the CIF has coordinates that are not numbers")
    if kind == "cif" and isinstance(error, AssertionError) and not error.args:
        return StructureError("the CIF's cell lengths and angles make no cell")
    return error


def _check_cif(text: str, atoms: Atoms) -> None:
    """What ASE lets pass: no cell, and atoms that are not those of the stated formula.

    (A file that was cut off between two atoms reads like any other.)
    """
    if not atoms.pbc.all():
        raise StructureError("the CIF has no complete unit cell (three lengths, three angles)")
    require_ordered(atoms.info.get("occupancy"))  # such a file has fewer atoms than it states
    stated = _stated_formula(text)
    counts = Counter(atoms.symbols)
    if not stated or not counts:
        return
    units = _UNITS.search(text)
    scale = sum(counts.values()) / sum(stated.values())
    allowed = _FORMULA_TOLERANCE * sum(counts.values())
    # Less than a formula unit is in the cell only where Z says so.
    cut = scale < 1 - _FORMULA_TOLERANCE and not (units and float(units[1]) < 1)
    if cut or any(abs(counts[s] - scale * stated.get(s, 0)) > allowed for s in {*counts, *stated}):
        formula = " ".join(f"{symbol}{number:g}" for symbol, number in stated.items())
        raise StructureError(
            f"the CIF states the formula {formula} but its atoms are "
            f"{atoms.get_chemical_formula()}; is it cut off, or are atoms missing?"
        )


def _stated_formula(text: str) -> dict[str, float]:
    """``_chemical_formula_sum`` of a CIF, nothing if it has none that is plain."""
    from ase.data import atomic_numbers

    match = _FORMULA.search(text)
    words = match.group(1).strip().strip("'\"").split() if match else []
    stated: dict[str, float] = {}
    for word in words:
        part = re.fullmatch(r"([A-Z][a-z]?)(\d*\.?\d*)", word)
        if part is None or (symbol := part[1]) not in {*atomic_numbers, "D"}:
            return {}
        number = float(part[2]) if part[2] not in ("", ".") else 1.0
        symbol = "H" if symbol == "D" else symbol
        stated[symbol] = stated.get(symbol, 0.0) + number
    return stated if sum(stated.values()) else {}


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
        name = lines[0].split()[0][5:45]
        crystal = any(key in low for key in ("_cell_length", "_symmetry", "_space_group"))
        if crystal or not (name.lower() == "global" or any(key in low for key in _PUBLICATION)):
            yield ReciNetError(f"CIF block {name!r} has no atoms")


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
        found = len(body) - 1
        while lines.next is not None and _is_atom(lines.next):
            lines.take()
            found += 1
        if found == int(word):
            yield head + "".join(body)
        else:
            yield ReciNetError(f"frame {number} claims {word} atoms and has {found} lines of them")
