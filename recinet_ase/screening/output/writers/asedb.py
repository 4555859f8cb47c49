"""ASE databases (sqlite and json): predictions as key-value pairs.

``ase db out.db 'bandgap>1'`` works on them. Nothing in them depends on the clock, the user
or chance, so that the same screen gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recinet_ase.screening.output.writers.structures import atoms_of, bare, kept_values, predictions

if TYPE_CHECKING:
    from ase.db.row import AtomsRow

    from recinet_ase.io.entries import Entry

ID_KEY = "source_id"
"""Key of the identity (ASE keeps ``id`` for the row number)."""

_TIME = 0.0  # 1 January 2000 in ASE's count of years


class _DatabaseWriter:
    """Rows without a structure are left out and counted."""

    needs_structures = True

    def __init__(self, path: Path, columns: Sequence[str], units: Mapping[str, str]) -> None:
        self.unwritten = 0
        self._path, self._columns = path, list(columns)
        self._keys = {column: allowed_key(column) for column in columns}
        self._metadata = {
            "title": "recinet-screen",
            "key_descriptions": {
                self._keys[c]: [c, c, units[c]] for c in columns if c in units and c != "natoms"
            },
        }
        self._number = 0

    def write(self, row: Mapping[str, Any], entry: Entry | None = None) -> None:
        """Append one row."""
        atoms = atoms_of(entry)
        if atoms is None or entry is None:
            self.unwritten += 1
            return
        pairs = {ID_KEY: str(row.get("id", ""))}
        pairs |= {self._keys[k]: v for k, v in predictions(row, self._columns).items()}
        for key, value in kept_values(entry.values, self._columns).items():
            pairs.setdefault(allowed_key(key), value)
        pairs = {k: allowed_value(v, exact=k == ID_KEY) for k, v in pairs.items()}
        for candidate in (atoms, bare(atoms)):
            try:
                record = _record(candidate, pairs, self._number + 1)
            except Exception:  # a calculator or constraint that ASE cannot store
                continue
            self._add(record, pairs)
            self._number += 1
            return
        self.unwritten += 1

    def _add(self, record: AtomsRow, pairs: dict[str, Any]) -> None:
        raise NotImplementedError


class SqliteWriter(_DatabaseWriter):
    """ASE's sqlite database."""

    def __init__(self, path: Path, columns: Sequence[str], units: Mapping[str, str]) -> None:
        from ase.db.sqlite import SQLite3Database

        super().__init__(path, columns, units)
        self._database = SQLite3Database(str(path), use_lock_file=False)
        self._database.metadata = self._metadata
        self._open = self._database.__enter__()

    def _add(self, record: AtomsRow, pairs: dict[str, Any]) -> None:
        self._open.write(record, pairs)

    def close(self) -> None:
        """Commit, and take the clock out of the file."""
        import sqlite3
        from contextlib import closing

        if self._database.connection is not None:
            self._open.__exit__(None, None, None)
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("UPDATE systems SET mtime = ?", (_TIME,))
            connection.commit()
            connection.execute("VACUUM")


class JsonWriter(_DatabaseWriter):
    """ASE's json database, written row by row (ASE rewrites the whole file for each)."""

    def __init__(self, path: Path, columns: Sequence[str], units: Mapping[str, str]) -> None:
        super().__init__(path, columns, units)
        self._handle = path.open("w", encoding="utf-8")
        self._handle.write("{")

    def _add(self, record: AtomsRow, pairs: dict[str, Any]) -> None:
        """Write a row as ASE's json databases hold it."""
        from ase.io.jsonio import encode

        fields = {
            key: record[key]
            for key in record.__dict__
            if key[0] != "_" and key not in record._keys and key != "id"
        }
        fields |= {"mtime": _TIME, "key_value_pairs": pairs}
        if record.get("constraints"):
            fields["constraints"] = record.get("constraints")
        text = ",\n ".join(f'"{key}": {encode(fields[key])}' for key in sorted(fields))
        self._handle.write(f'"{self._number + 1}": {{\n {text}}},\n')

    def close(self) -> None:
        """Write what stands at the end."""
        if not self._handle.closed:
            ids = list(range(1, self._number + 1))
            self._handle.write(
                f'"metadata": {json.dumps(self._metadata)},\n'
                f'"ids": {ids},\n"nextid": {self._number + 1}}}\n'
            )
            self._handle.close()


def _record(atoms: Any, pairs: Mapping[str, Any], number: int) -> AtomsRow:
    """A row that depends on the structure and its values alone."""
    from ase.db.row import AtomsRow
    from ase.io.jsonio import encode

    record = AtomsRow(atoms)
    record.ctime = _TIME
    record.user = ""
    digest = hashlib.md5(usedforsecurity=False)
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(array.tobytes())
    digest.update(f"{number}{dict(pairs)}".encode())
    record.unique_id = digest.hexdigest()
    encode([record[key] for key in record.__dict__ if key[0] != "_"])  # can it be stored?
    return record


def allowed_key(key: str) -> str:
    """A key that ASE takes: a word that is no name of its own and no chemical formula."""
    from ase.db.core import reserved_keys
    from ase.formula import Formula

    word = re.sub(r"\W", "_", key, flags=re.ASCII) or "_"
    if not re.match("[A-Za-z_]", word):
        word = f"_{word}"
    try:
        Formula(word, strict=True)
    except ValueError:
        return f"input_{word}" if word in reserved_keys else word
    return f"input_{word}"


def allowed_value(value: Any, exact: bool = False) -> Any:
    """A value that ASE takes: a text that reads like a number becomes one, or is quoted.

    Args:
        value: A number, flag or text.
        exact: The text must be the same again (an identity): ``"1.50"`` is quoted then.
    """
    from ase.db.core import convert_str_to_int_float_bool_or_str as converted

    if not isinstance(value, str):
        return value
    number = converted(value)
    if isinstance(number, str):
        return value
    finite = not isinstance(number, bool) and math.isfinite(number)
    same = finite and str(number) == value
    measured = finite and isinstance(number, float) and not exact
    return number if same or measured else repr(value)
