"""Processor time to pick a shortlist from a million rows, and to tell structures apart.

python benchmarks/screening/selection.py [--rows 1000000] [--structures 2000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase.db import connect

from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import ListTable

EXAMPLES = Path(__file__).parents[2] / "examples" / "crystals.json"


class Columns(ListTable):
    """A table whose columns are given, so that reading them costs nothing."""

    def __init__(self, columns: dict[str, np.ndarray], units: dict[str, str]) -> None:
        super().__init__(list(columns), [], units)
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns["id"])


def made_up(rows: int) -> Columns:
    """Random values with 90 % intervals and the formulas of the examples."""
    rng = np.random.default_rng(0)
    formulas = [row.formula for row in connect(EXAMPLES).select()]
    columns: dict[str, Any] = {
        "id": np.arange(rows).astype(str).astype(object),
        "formula": np.array(formulas, dtype=object)[rng.integers(0, len(formulas), rows)],
        "in_domain": (rng.random(rows) < 0.95).astype(object),
    }
    for name, scale in (("bandgap", 2.0), ("ehull", 0.3), ("bulk_modulus", 80.0)):
        value, half = rng.exponential(scale, rows), rng.exponential(0.2 * scale, rows)
        columns |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
    units = {name: "" for name in columns if name not in ("id", "formula", "in_domain")}
    return Columns(columns, units)


def timed(label: str, work: Callable[[], np.ndarray]) -> None:
    start = time.process_time()
    found = work()
    print(f"{label}: {time.process_time() - start:.2f} s, {len(found):,} rows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--structures", type=int, default=2000)
    arguments = parser.parse_args()
    table = made_up(arguments.rows)
    window = "bandgap > 1 and bandgap < 2 and ehull < 0.05"
    print(f"{len(table):,} rows")
    for label, selection in {
        "where": Selection(window),
        "where, confident": Selection(window, confident=True),
        "where has('O')": Selection("has('O')"),
        "sort by two columns": Selection(sort=("ehull", "-bandgap")),
        "pareto of two": Selection(pareto=("ehull", "-bandgap")),
        "pareto of three": Selection(pareto=("ehull", "-bandgap", "-bulk_modulus")),
    }.items():
        timed(label, lambda selection=selection: selection.indices(table))

    crystals = [row.toatoms() for row in connect(EXAMPLES).select() if row.natoms < 20]
    rng = np.random.default_rng(0)
    structures = []
    for i in range(arguments.structures):
        atoms = crystals[i % len(crystals)].copy()
        atoms.rattle(0.002, rng=rng)
        structures.append(atoms)
    rows = [{"formula": atoms.get_chemical_formula()} for atoms in structures]
    copies = ListTable(["formula"], rows, atoms=structures)
    print(f"{len(copies):,} rattled copies of {len(crystals)} crystals")
    Selection(unique="fingerprint", top=1).indices(copies)  # imports
    for method in ("fingerprint", "matcher"):
        timed(f"unique by {method}", lambda m=method: Selection(unique=m).indices(copies))


if __name__ == "__main__":
    main()
