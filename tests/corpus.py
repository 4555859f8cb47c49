"""A corpus of malformed structures between good ones, in several formats.

``write_corpus(folder)`` makes the files, the same for the same seed. Run as a script, it
prints what it made: ``python tests/corpus.py FOLDER``.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.db import connect
from pymatgen.io.ase import AseAtomsAdaptor
from support import EXAMPLES

Rng = np.random.Generator
HTML = "<!DOCTYPE html>\n<html><head><title>404</title></head><body>data_ not found</body></html>\n"


@dataclass(frozen=True)
class Case:
    """One entry of a file.

    Attributes:
        fault: Kind of fault, ``""`` for a good crystal.
        crystal: Number of the example crystal that it is or was.
        form: How a good one is written (``""`` plainly, else a form that is unusual but right).
    """

    fault: str
    crystal: int
    form: str = ""


@dataclass(frozen=True)
class CorpusFile:
    """A file (or folder) and what its entries are, in order; ``clean`` has the good ones alone."""

    path: Path
    clean: Path
    cases: tuple[Case, ...]


# Faults of the structure itself, for every format that can hold it


def _positions(atoms: Atoms, value: float) -> Atoms:
    atoms.positions[-1, 1] = value
    return atoms


def _cell(atoms: Atoms, change: Callable[[np.ndarray], np.ndarray]) -> Atoms:
    atoms.set_cell(change(atoms.cell.array.copy()), scale_atoms=True)
    return atoms


def _flat(cell: np.ndarray) -> np.ndarray:
    cell[2] = cell[0] + cell[1]
    return cell


def _overlap(atoms: Atoms, distance: float) -> Atoms:
    extra = Atoms([29], positions=[atoms.positions[0] + [distance, 0, 0]])
    return atoms + extra


def _vacuum(atoms: Atoms, length: float) -> Atoms:
    atoms.center(vacuum=length, axis=2)
    return atoms


def _number(atoms: Atoms, z: int) -> Atoms:
    atoms.numbers[0] = z
    return atoms


def _pbc(atoms: Atoms, pbc: Any) -> Atoms:
    atoms.pbc = pbc
    return atoms


def _isolated(_: Atoms) -> Atoms:
    return Atoms("Fe", cell=[14, 14, 14], pbc=True)


STRUCTURE_FAULTS: dict[str, Callable[[Atoms], Atoms]] = {
    "nan coordinate": lambda a: _positions(a, np.nan),
    "infinite coordinate": lambda a: _positions(a, np.inf),
    "nan cell": lambda a: _cell(a, lambda c: c * np.nan),
    "zero-volume cell": lambda a: _cell(a, _flat),
    "no cell": lambda a: Atoms(a.numbers, a.positions, pbc=True),
    "overlapping atoms": lambda a: _overlap(a, 0.05),
    "duplicate atoms": lambda a: _overlap(a, 0.0),
    "isolated atom": _isolated,
    "huge vacuum": lambda a: _vacuum(a, 900.0),
    "cell in nanometres": lambda a: _cell(a, lambda c: c / 10),
    "cell in picometres": lambda a: _cell(a, lambda c: c * 100),
    "element X": lambda a: _number(a, 0),
    "element 118": lambda a: _number(a, 118),
    "slab periodicity": lambda a: _pbc(a, [True, True, False]),
    "no periodicity": lambda a: _pbc(a, False),
    "no atoms": lambda a: a[:0],
}

# Faults of texts


def _sub(pattern: str, new: str, text: str, count: int = 1) -> str:
    changed, done = re.subn(pattern, new, text, count=count, flags=re.MULTILINE)
    assert done, (pattern, text)
    return changed


def _cut(text: str, after: str, rng: Rng) -> str:
    """Cut within the lines of the atoms: in a line or between two."""
    start = text.index(after) + len(after)
    end = text.rstrip().rindex("\n")
    return text[: int(rng.integers(start, end + 1))] + "\n"


def _rubbish(text: str, rng: Rng) -> str:
    noise = bytes(rng.integers(128, 256, 400, dtype=np.uint8)).decode("latin-1")
    at = text.index("_cell_length") if "_cell_length" in text else len(text) // 3
    return text[:at] + noise.replace("\n", "") + "\n"


CIF_FAULTS: dict[str, Callable[[str, Rng], str]] = {
    "truncated": lambda t, r: _cut(t, "_atom_site_occupancy\n", r),
    "cut before the atoms": lambda t, r: t[: t.index("loop_")],
    "empty block": lambda t, r: t.splitlines()[0] + "\n",
    "html page": lambda t, r: "data_page\n_cell_length_a 3\n" + HTML,
    "binary rubbish": _rubbish,
    "no cell length": lambda t, r: _sub(r"^_cell_length_b.*\n", "", t),
    "no cell angle": lambda t, r: _sub(r"^_cell_angle_gamma.*\n", "", t),
    "cell length in words": lambda t, r: _sub(r"(_cell_length_a\s+)\S+", r"\1four", t),
    "impossible angles": lambda t, r: _sub(r"(_cell_angle_\w+\s+)\S+", r"\g<1>170", t, 3),
    "missing column": lambda t, r: _sub(r"^\s*_atom_site_fract_z\n", "", t),
    "misnamed column": lambda t, r: _sub("_atom_site_fract_z", "_atom_site_fract_q", t),
    "unknown coordinate": lambda t, r: _sub(r"^(  \S+ +\S+ +1.0 +)\S+", r"\1?", t),
    "symbol Uuo": lambda t, r: _sub(r"^  [A-Z][a-z]?( +\S+ +1.0 )", r"  Uuo\1", t),
    "symbol Qq": lambda t, r: _sub(r"^  [A-Z][a-z]?( +\S+ +1.0 )", r"  Qq\1", t),
    "disordered site": lambda t, r: _sub(r"1\.0000$", "0.5000", t),
    "space group 999": lambda t, r: _sub(r"(_IT_number\s+)1$", r"\g<1>999", t),
    "atoms missing": lambda t, r: t[: t.rstrip().rindex("\n")] + "\n",
}

XYZ_FAULTS: dict[str, Callable[[str, Rng], str]] = {
    "one atom too many": lambda t, r: t + "Cu 0.1 0.2 0.3\n",
    "one atom too few": lambda t, r: t[: t.rstrip().rindex("\n")] + "\n",
    "negative number of atoms": lambda t, r: "-" + t,
    "a thousand million atoms": lambda t, r: _sub(r"\A\d+", "1000000000", t),
    "number of atoms in words": lambda t, r: _sub(r"\A\d+", "three", t),
    "no lattice": lambda t, r: _sub(r'Lattice="[^"]*" ', "", t),
    "lattice of rank two": lambda t, r: _sub(r'Lattice="[^"]*"', 'Lattice="3 0 0 3"', t),
    "lattice in words": lambda t, r: _sub(r'Lattice="\S+', 'Lattice="a', t),
    "missing column": lambda t, r: _sub(r"^([A-Z][a-z]? .*) +\S+$", r"\1", t),
    "coordinate in words": lambda t, r: _sub(r"^([A-Z][a-z]? +)\S+", r"\1zero", t),
    "symbol Uuo": lambda t, r: _sub(r"^[A-Z][a-z]? ", "Uuo ", t),
    "charged symbol": lambda t, r: _sub(r"^([A-Z][a-z]?) ", r"\g<1>2+ ", t),
    "unknown properties": lambda t, r: _sub("species:S:1:pos:R:3", "pos:R:3:what:Q:1", t),
}

JSON_FAULTS: dict[str, Callable[[dict[str, Any], Rng], str]] = {
    "truncated": lambda d, r: json.dumps(d)[: int(r.integers(20, 150))],
    "null structure": lambda d, r: json.dumps({"gap": 1.0, "structure": None}),
    "a list": lambda d, r: json.dumps([d["sites"]]),
    "a number": lambda d, r: "17",
    "html page": lambda d, r: HTML.replace("\n", " "),
    "no sites": lambda d, r: json.dumps({k: v for k, v in d.items() if k != "sites"}),
    "sites of a wrong shape": lambda d, r: json.dumps({**d, "sites": {"a": 1}}),
    "lattice of rank two": lambda d, r: json.dumps({**d, "lattice": {"matrix": [[1, 0], [0, 1]]}}),
    "lattice missing": lambda d, r: json.dumps({k: v for k, v in d.items() if k != "lattice"}),
    "two coordinates": lambda d, r: json.dumps(_site(d, abc=[0.1, 0.2])),
    "coordinate in words": lambda d, r: json.dumps(_site(d, abc=["a", 0, 0])),
    "symbol Uuo": lambda d, r: json.dumps(_site(d, species=[{"element": "Uuo", "occu": 1}])),
    "disordered site": lambda d, r: json.dumps(
        _site(d, species=[{"element": "Na", "occu": 0.5}, {"element": "K", "occu": 0.5}])
    ),
    "no species": lambda d, r: json.dumps(_site(d, species=None)),
    "binary rubbish": lambda d, r: _rubbish(json.dumps(d), r),
}


def _site(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    first, *rest = record["sites"]
    return {**record, "sites": [{**first, **changes}, *rest]}


CSV_FAULTS = {
    **CIF_FAULTS,
    "empty cell": lambda t, r: "",
    "structure in words": lambda t, r: "rocksalt",
}

# What is done to the rows of a sqlite database after they are written.
SQL_FAULTS = {
    "positions cut": "UPDATE systems SET positions = substr(positions, 1, 8) WHERE id = ?",
    "positions missing": "UPDATE systems SET positions = NULL WHERE id = ?",
    "numbers missing": "UPDATE systems SET numbers = NULL WHERE id = ?",
    "numbers of another length": "UPDATE systems SET numbers = zeroblob(4) WHERE id = ?",
    "cell cut": "UPDATE systems SET cell = substr(cell, 1, 24) WHERE id = ?",
    "values damaged": "UPDATE systems SET key_value_pairs = '{\"a\": ' WHERE id = ?",
    "positions as text": "UPDATE systems SET positions = 'none' WHERE id = ?",
}

# Unusual, but right: the answer must be that for the plain crystal.
FORMS: dict[str, Callable[[Atoms], Atoms]] = {
    "": lambda a: a,
    "left-handed cell": lambda a: Atoms(
        a.numbers, a.positions, cell=a.cell.array[[1, 0, 2]], pbc=True
    ),
    "atoms outside the cell": lambda a: Atoms(
        a.numbers, a.positions + a.cell.array[0] * 2 - a.cell.array[2], cell=a.cell, pbc=True
    ),
}


def crystals() -> list[Atoms]:
    """Small example crystals without anything else attached."""
    found = [row.toatoms() for row in connect(EXAMPLES).select()]
    # One written with few digits is not the same crystal: the distances of a shell differ.
    return [Atoms(a.numbers, a.positions, cell=a.cell, pbc=True) for a in found if 2 <= len(a) < 9]


def _written(atoms: Atoms, kind: str) -> str:
    buffer: Any = io.BytesIO() if kind == "cif" else io.StringIO()
    options = {"columns": ["symbols", "positions"]} if kind == "extxyz" else {}
    ase.io.write(buffer, atoms, format=kind, **options)
    return buffer.getvalue().decode() if kind == "cif" else str(buffer.getvalue())


def _text(case: Case, kind: str, faults: dict[str, Callable[[str, Rng], str]], rng: Rng) -> str:
    atoms = _atoms(case)
    if case.fault in faults:
        return faults[case.fault](_written(atoms, kind), rng)
    return _written(atoms, kind)


def _atoms(case: Case) -> Atoms:
    atoms = FORMS[case.form](crystals_once()[case.crystal].copy())
    change = STRUCTURE_FAULTS.get(case.fault)
    return change(atoms) if change else atoms


_CRYSTALS: list[Atoms] = []


def crystals_once() -> list[Atoms]:
    """The crystals, read once."""
    if not _CRYSTALS:
        _CRYSTALS.extend(crystals())
    return _CRYSTALS


def _json(case: Case, rng: Rng) -> str:
    atoms = _atoms(case)
    if case.form == "charged species" or case.fault in JSON_FAULTS:
        structure = AseAtomsAdaptor.get_structure(atoms)
        if case.form:
            structure.add_oxidation_state_by_site([1] * len(structure))
        record = structure.as_dict()
        return JSON_FAULTS[case.fault](record, rng) if case.fault else json.dumps(record)
    lattice = {"matrix": atoms.cell.tolist(), "pbc": atoms.pbc.tolist()}
    frac = np.zeros((len(atoms), 3))
    if abs(np.linalg.det(atoms.cell.array)) > 1e-9:
        frac = np.linalg.solve(atoms.cell.array.T, atoms.positions.T).T
    species = [[{"element": s, "occu": 1}] for s in atoms.symbols]
    sites = [{"species": s, "abc": f.tolist()} for s, f in zip(species, frac, strict=True)]
    return json.dumps({"lattice": lattice, "sites": sites})


# Files


def _write_cifs(path: Path, cases: Sequence[Case], rng: Rng) -> None:
    path.mkdir()
    for i, case in enumerate(cases):
        raw = _text(case, "cif", CIF_FAULTS, rng).encode()
        if case.fault == "utf-16":
            raw = raw.decode().encode("utf-16")
        elif case.fault == "empty file":
            raw = b""
        elif case.fault == "html page":
            raw = HTML.encode()
        (path / f"{i:04d}.cif").write_bytes(raw)


def _write_blocks(path: Path, cases: Sequence[Case], rng: Rng) -> None:
    texts = [
        re.sub(r"\Adata_\S*", f"data_{i}", _text(case, "cif", CIF_FAULTS, rng))
        for i, case in enumerate(cases)
    ]
    path.write_text("".join(texts))


def _write_frames(path: Path, cases: Sequence[Case], rng: Rng) -> None:
    path.write_text("".join(_text(case, "extxyz", XYZ_FAULTS, rng) for case in cases))


def _write_lines(path: Path, cases: Sequence[Case], rng: Rng) -> None:
    path.write_text("".join(_json(case, rng) + "\n" for case in cases))


def _write_csv(path: Path, cases: Sequence[Case], rng: Rng) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["name", "cif", "source"])
        for i, case in enumerate(cases):
            row = [f"c{i}", _text(case, "cif", CSV_FAULTS, rng), "corpus"]
            writer.writerow(row[:2] if case.fault == "missing field" else row)


def _write_database(path: Path, cases: Sequence[Case], rng: Rng) -> None:
    with connect(path) as database:
        for case in cases:
            database.write(_atoms(case), number=case.crystal)
    with sqlite3.connect(path) as connection:
        for i, case in enumerate(cases, 1):
            if case.fault in SQL_FAULTS:
                connection.execute(SQL_FAULTS[case.fault], [i])


_NOT_IN_CIF = {
    "no atoms",
    "no cell",
    "slab periodicity",
    "no periodicity",
    "nan cell",
    "zero-volume cell",
}
_NOT_IN_XYZ = {"no cell", "element 118", "no atoms"}
_in_cif = {name for name in STRUCTURE_FAULTS if name not in _NOT_IN_CIF}
_in_xyz = {name for name in STRUCTURE_FAULTS if name not in _NOT_IN_XYZ}

FILES: dict[str, tuple[Callable[..., None], set[str], tuple[str, ...]]] = {
    "cifs": (
        _write_cifs,
        {*CIF_FAULTS, *_in_cif, "utf-16", "empty file"},
        ("", "atoms outside the cell"),
    ),
    # (A block without a cell and atoms is no entry.)
    "blocks.cif": (
        _write_blocks,
        {*CIF_FAULTS, *_in_cif} - {"html page", "empty block"},
        ("",),
    ),
    "frames.extxyz": (_write_frames, {*XYZ_FAULTS, *_in_xyz}, tuple(FORMS)),
    "rows.db": (_write_database, {*SQL_FAULTS, *STRUCTURE_FAULTS}, tuple(FORMS)),
    "records.jsonl": (
        _write_lines,
        {*JSON_FAULTS, *STRUCTURE_FAULTS},
        (*FORMS, "charged species"),
    ),
    "table.csv": (_write_csv, {*CSV_FAULTS, *_in_cif, "missing field"}, ("",)),
}
"""Writer, faults and unusual forms of each file."""

FORMS["charged species"] = FORMS[""]


def write_corpus(folder: Path, malformed: int = 500, seed: int = 0) -> list[CorpusFile]:
    """Files with malformed entries, every kind of every format, between good ones."""
    rng = np.random.default_rng(seed)
    kinds = [(name, fault) for name, (_, faults, _) in FILES.items() for fault in sorted(faults)]
    # Every kind once, then any: also the same fault in several places of one file.
    chosen = [*kinds, *(kinds[i] for i in rng.integers(0, len(kinds), malformed - len(kinds)))]
    made = []
    for name, (write, _, forms) in FILES.items():
        cases = [
            Case(fault, int(rng.integers(len(crystals_once()))))
            for file, fault in chosen
            if file == name
        ]
        for _ in range(len(cases) // 2):
            form = forms[int(rng.integers(len(forms)))]
            cases.append(Case("", int(rng.integers(len(crystals_once()))), form))
        cases = [cases[i] for i in rng.permutation(len(cases))]
        if name.startswith("frames"):  # a file that begins with rubbish is of no known format
            cases.sort(key=lambda case: case.fault != "" or case.form != "", reverse=False)
            head, tail = cases[:1], cases[1:]
            cases = head + [tail[i] for i in rng.permutation(len(tail))]
        suffix = Path(name).suffix
        path, clean = folder / name, folder / f"{Path(name).stem}-clean{suffix}"
        good = [Case("", case.crystal) for case in cases if not case.fault]
        write(path, cases, rng)
        write(clean, good, rng)
        made.append(CorpusFile(path, clean, tuple(cases)))
    return made


def main(folder: str) -> None:
    """Write the corpus and say what is in it."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    made = write_corpus(target)
    faults = Counter(case.fault for file in made for case in file.cases if case.fault)
    for file in made:
        bad = sum(1 for case in file.cases if case.fault)
        print(f"{file.path.name}: {bad} malformed, {len(file.cases) - bad} good")
    print(f"{sum(faults.values())} malformed entries of {len(faults)} kinds")


if __name__ == "__main__":
    main(*sys.argv[1:])
