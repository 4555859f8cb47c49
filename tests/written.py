"""Structures written in the notations that tests read them from, and read back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.db import connect
from pymatgen.io.ase import AseAtomsAdaptor

from recinet_ase.io import find_sources, read_entries
from recinet_ase.io.entries import Entry


def entries_of(*patterns: object, id_key: str | None = None, **options: Any) -> list[Entry]:
    return list(read_entries(find_sources(map(str, patterns), **options), id_key))


def cif_text(atoms: Atoms) -> str:
    buffer = io.BytesIO()
    ase.io.write(buffer, atoms, format="cif")
    return buffer.getvalue().decode()


def poscar_text(atoms: Atoms) -> str:
    buffer = io.StringIO()
    ase.io.write(buffer, atoms, format="vasp")
    return buffer.getvalue()


def pymatgen_dict(atoms: Atoms) -> dict[str, Any]:
    return AseAtomsAdaptor.get_structure(atoms).as_dict()


def jarvis_dict(atoms: Atoms) -> dict[str, Any]:
    return {
        "lattice_mat": atoms.cell.tolist(),
        "coords": atoms.get_scaled_positions().tolist(),
        "elements": atoms.get_chemical_symbols(),
        "cartesian": False,
    }


def write_db(path: Path, crystals: Sequence[Atoms], **values: Sequence[Any]) -> Path:
    with connect(path) as database:
        for i, atoms in enumerate(crystals):
            database.write(atoms, {key: column[i] for key, column in values.items()})
    return path
