"""References of one's own, from files.

- csv, or json with a list of records: a formula, a formation energy in eV/atom, and if there
  are any an id and the level of theory, under the usual names (`_FORMULA`, `_ID`, `_THEORY`;
  the energy by any name of the property ``formation_energy``).
- json with pymatgen's ``PDEntry``, ``ComputedEntry`` or ``ComputedStructureEntry`` (total
  energies, corrections included, every element among them), with the level of theory in their
  ``parameters`` or ``data``; a ``PhaseDiagram``.
- ASE databases and whatever else `recinet_ase.io` reads, with a formation energy beside each
  structure.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from recinet_ase.errors import ReciNetError, UnknownNameError, reason_of
from recinet_ase.properties import get_property_info
from recinet_ase.stability.composition import amounts_of, reduced_formula
from recinet_ase.stability.convert import phases_of_entries
from recinet_ase.stability.phases import Phase

_FORMULA = ("formula", "composition", "formula_pretty", "pretty_formula", "reduced_formula")
_ID = ("id", "entry_id", "material_id", "mp_id", "jid", "name", "uid")
_THEORY = ("functional", "level_of_theory", "theory", "run_type", "xc")
_LEVELS = {"gga": "PBE", "gga+u": "PBE", "gga_u": "PBE", "pbe": "PBE", "pbe+u": "PBE"}
"""The Materials Project's run types, which its corrections make comparable, and spellings."""

_PER_ATOM = (-5.0, 2.0)
"""eV/atom: a median outside is none of formation energies."""


@dataclass(frozen=True)
class _Row:
    where: str
    formula: Any
    energy: Any
    id: str = ""
    theory: str = ""


def read_phases(path: str | Path) -> tuple[list[Phase], str]:
    """The phases in a file, and their level of theory (``""`` if not stated).

    Raises:
        ReciNetError: If the file cannot be read, or a row is not what it should be; says which.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ReciNetError(
            f"no such references: {path} (a file of formation energies, jarvis, mp, or self)"
        )
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _checked(path, _csv_rows(path))
    if name.endswith((".json", ".json.gz")):
        document = _json(path)
        records = document
        if isinstance(document, dict):
            inner = document.get("computed_data") or {}  # of a PhaseDiagram
            records = inner.get("all_entries", document.get("entries"))
        if isinstance(records, list):
            if records and all(isinstance(r, dict) and "@class" in r for r in records):
                return _entries(path, records)
            if not any(isinstance(r, dict) and "atoms" in r for r in records):
                return _checked(path, _records(path, enumerate(records, 1)))
    return _checked(path, _structures(path))


def _checked(path: Path, rows: Iterable[_Row]) -> tuple[list[Phase], str]:
    """The phases of rows that have been looked at, and their level of theory."""
    phases, places = [], []
    theories: dict[str, str] = {}
    for row in rows:
        phases.append(_phase(row))
        places.append(row.where)
        theory = _LEVELS.get(row.theory.lower(), row.theory)
        if theory:
            theories.setdefault(theory, row.where)
    if not phases:
        raise ReciNetError(f"{path} has no rows")
    middle = median(phase.energy for phase in phases)
    if not _PER_ATOM[0] <= middle <= _PER_ATOM[1]:
        extreme = max(range(len(phases)), key=lambda i: abs(phases[i].energy))
        raise ReciNetError(
            f"{places[extreme]} ({phases[extreme].formula}): {phases[extreme].energy:.4g} eV/atom, "
            f"and half of the energies are beyond {middle:.4g}; formation energies per atom are "
            "needed, these look like total energies or those of a cell"
        )
    return phases, _only(theories)


def _only(theories: Mapping[str, str]) -> str:
    """The level of theory among those stated (with where each is).

    Raises:
        ReciNetError: If there are two.
    """
    if len(theories) > 1:
        (one, first), (other, second), *_ = theories.items()
        raise ReciNetError(
            f"{second} is at the level of {other}, {first} at that of {one}: energies of two "
            "levels of theory must not be compared"
        )
    return next(iter(theories), "")


def _phase(row: _Row) -> Phase:
    energy = row.energy
    if energy is None or (isinstance(energy, str) and not energy.strip()):
        raise ReciNetError(f"{row.where} ({row.formula}) has no formation energy")
    try:
        energy = float(energy)
    except (TypeError, ValueError):
        raise ReciNetError(f"{row.where}: the formation energy {energy!r} is no number") from None
    if not math.isfinite(energy):
        raise ReciNetError(f"{row.where} ({row.formula}): the formation energy is {energy}")
    try:
        return Phase.of(row.formula, energy, row.id)
    except ReciNetError as error:
        raise ReciNetError(f"{row.where}: {error}") from None


def _csv_rows(path: Path) -> Iterator[_Row]:
    try:
        opened = gzip.open if path.suffix.lower() == ".gz" else open
        with opened(path, "rt", newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle, skipinitialspace=True))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ReciNetError(f"{path} cannot be read as csv ({reason_of(error)})") from None
    # The first line is the header, so that the numbers are those of an editor.
    return _records(path, enumerate(rows, 2), "line")


def _json(path: Path) -> Any:
    try:
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except (OSError, EOFError, ValueError) as error:
        raise ReciNetError(f"{path} cannot be read as json ({reason_of(error)})") from None


def _records(path: Path, records: Iterable[tuple[int, Any]], word: str = "row") -> Iterator[_Row]:
    for number, record in records:
        where = f"{path}, {word} {number}"
        if not isinstance(record, Mapping):
            raise ReciNetError(f"{where} is no record with a formula and a formation energy")
        values = {str(key).strip(): value for key, value in record.items() if key is not None}
        formula = _first(values, _FORMULA)
        if formula is None:
            raise ReciNetError(
                f"{where} has no formula (one of {', '.join(_FORMULA)}); it has "
                f"{', '.join(values) or 'nothing'}"
            )
        yield _row(where, values, formula)


def _structures(path: Path) -> Iterator[_Row]:
    from recinet_ase.io import find_sources, read_entries

    for entry in read_entries(find_sources([str(path)])):
        if isinstance(entry.atoms, Exception):
            raise ReciNetError(f"{path}, {entry.id}: {reason_of(entry.atoms)}")
        values = {"id": entry.id, **entry.values}
        yield _row(f"{path}, {entry.id}", values, entry.atoms)


def _row(where: str, values: Mapping[str, Any], formula: Any) -> _Row:
    key = _energy_key(values)
    if key is None:
        names = ", ".join(values) or "nothing"
        raise ReciNetError(
            f"{where} has no formation energy (formation_energy, in eV/atom); it has {names}"
        )
    name, theory = _first(values, _ID), _first(values, _THEORY)
    return _Row(where, formula, values[key], str(name or ""), str(theory or "").strip())


def _energy_key(values: Mapping[str, Any]) -> str | None:
    for key in values:
        try:
            if get_property_info(key).name == "formation_energy":
                return key
        except UnknownNameError:
            continue
    return None


def _first(values: Mapping[str, Any], names: Iterable[str]) -> Any:
    lower = {key.lower(): value for key, value in values.items()}
    return next((lower[n] for n in names if lower.get(n) not in (None, "")), None)


def _entries(path: Path, records: list[dict[str, Any]]) -> tuple[list[Phase], str]:
    """Entries of pymatgen as it writes them: total energies to energies of formation."""
    from pymatgen.analysis.phase_diagram import PDEntry
    from pymatgen.core import Composition

    entries = []
    theories: dict[str, str] = {}
    for number, record in enumerate(records, 1):
        where = f"{path}, row {number}"
        try:
            amounts = amounts_of(record["composition"])
            # What pymatgen keeps as the energy lacks the corrections.
            energy = float(record["energy"]) + float(record.get("correction") or 0.0)
        except (KeyError, TypeError, ValueError) as error:
            raise ReciNetError(f"{where} is no entry of pymatgen ({reason_of(error)})") from None
        where = f"{where} ({reduced_formula(amounts)})"
        if not math.isfinite(energy):
            raise ReciNetError(f"{where}: its energy is {energy}")
        stated = {**record, **(record.get("data") or {}), **(record.get("parameters") or {})}
        theory = str(_first(stated, _THEORY) or "")
        if theory:
            theories.setdefault(_LEVELS.get(theory.lower(), theory), where)
        elif str(record["@class"]).startswith("Computed"):
            raise ReciNetError(
                f"{where} does not state its level of theory (run_type or functional, in its "
                "parameters or data)"
            )
        name = record.get("entry_id") or (record.get("data") or {}).get("material_id") or ""
        name = str(name or record.get("name") or "")
        entries.append(PDEntry(Composition(amounts), energy, name, record.get("attribute")))
    functional = _only(theories)
    try:
        phases = phases_of_entries(entries)
    except ReciNetError as error:
        raise ReciNetError(f"{path}: {error}") from None
    rows = [_Row(f"{path}, row {i}", p.amounts, p.energy, p.id) for i, p in enumerate(phases, 1)]
    return _checked(path, rows)[0], functional
