"""Extended xyz: predictions in ``info``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from recinet_ase.screening.output.writers.structures import atoms_of, bare, kept_values, predictions

if TYPE_CHECKING:
    from recinet_ase.io.entries import Entry


_SIMPLE = re.compile(r"[\w .,:;#/+*()<>|@!?~^&-]*").fullmatch


class ExtxyzWriter:
    """One frame a row; rows without a structure are left out and counted."""

    needs_structures = True

    def __init__(self, path: Path, columns: Sequence[str], units: Mapping[str, str]) -> None:
        self.unwritten = 0
        self._columns = list(columns)
        self._handle = path.open("w", encoding="utf-8")

    def write(self, row: Mapping[str, Any], entry: Entry | None = None) -> None:
        """Append one frame."""
        atoms = atoms_of(entry)
        if atoms is None or entry is None:
            self.unwritten += 1
            return
        info = {
            **_allowed(kept_values(entry.values, self._columns)),
            "id": str(row.get("id", "")),
            **predictions(row, self._columns),
        }
        info = {key: _readable(value) for key, value in info.items()}
        whole = atoms.copy()
        whole.calc = atoms.calc
        for candidate in (whole, bare(atoms)):
            candidate.info = dict(info)
            text = _frame(candidate)
            if text is not None:
                self._handle.write(text)
                return
        self.unwritten += 1

    def close(self) -> None:
        """Flush what is left."""
        self._handle.close()


def _readable(value: Any) -> Any:
    """A text whose line, quotes and escapes ASE reads again: anything else as ``%`` and its code.

    (As in an address: a line break is ``%0A``.)
    """
    if not isinstance(value, str) or _SIMPLE(value):
        return value
    return "".join(c if c.isprintable() and c not in '\\"%' else quote(c, safe="") for c in value)


def _frame(atoms: Any) -> str | None:
    """A structure as extended xyz, None where the format has no type for something in it."""
    from ase.io.extxyz import write_extxyz

    buffer = StringIO()
    try:
        write_extxyz(buffer, [atoms])
    except Exception:  # an array that the format has no type for
        return None
    return buffer.getvalue()


def _allowed(info: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the format keeps for itself (a reader would take it for results)."""
    from ase.calculators.calculator import all_properties

    taken = {"Lattice", "Properties", "pbc", *all_properties}
    return {key: value for key, value in info.items() if key not in taken}
