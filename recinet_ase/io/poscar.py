"""POSCAR: ASE's reader, given symbols that it understands and no guesses."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from recinet_ase.elements import atomic_number
from recinet_ase.errors import StructureError

if TYPE_CHECKING:
    from ase import Atoms

_SYMBOLS = 5  # line of the element symbols, where they are


def is_poscar(text: str) -> bool:
    """A comment, a scaling factor, then three vectors of three numbers."""
    lines = text.lstrip("\ufeff").split("\n", 6)[1:5]
    try:
        rows = [[float(word) for word in line.split()[:3]] for line in lines]
    except ValueError:
        return False
    return [len(row) for row in rows][1:] == [3, 3, 3] and len(rows[0]) in (1, 3)


def parse_poscar(text: str, path: str = "") -> Atoms:
    """The structure of a POSCAR or CONTCAR.

    Deuterium is hydrogen; ``Li_sv``, ``Si/5f2a`` and ``NA`` are the elements that they name.

    Args:
        text: Its text.
        path: Where it lies: symbols that it lacks are looked for in a POTCAR or OUTCAR beside it.

    Raises:
        StructureError: If it names something that is no element, or names none.
        Exception: Whatever ASE meets.
    """
    from ase.io.vasp import read_vasp

    lines = text.lstrip("\ufeff").split("\n")
    words = lines[_SYMBOLS].split() if len(lines) > _SYMBOLS else []
    if words and not words[0].isdecimal():
        lines[_SYMBOLS] = " ".join(_symbol(word) for word in words)
    elif words and not _names_elements(lines[0], len(words)):
        if not path:
            raise StructureError("the POSCAR names no elements (line 6)")
        lines[0] = ""  # a comment, in which ASE would look for elements
    handle = StringIO("\n".join(lines))
    handle.name = path  # type: ignore[attr-defined]
    return read_vasp(handle)


def _symbol(word: str) -> str:
    from ase.data import chemical_symbols

    name = word.split("_")[0].split("/")[0]
    number = atomic_number(name)
    if not number:
        raise StructureError(f"the POSCAR names {word[:20]!r}, which is no element")
    return chemical_symbols[number]


def _names_elements(comment: str, count: int) -> bool:
    """Whether a comment is a list of elements as VASP 4 wants it, and nothing else."""
    words = comment.split()
    return len(words) == count and all(map(atomic_number, words))
