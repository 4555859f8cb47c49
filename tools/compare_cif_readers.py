"""Read every CIF of a folder through pymatgen and through this package; list the differences.

    python tools/compare_cif_readers.py FOLDER

To make such a folder from the crystals of a MEGNet file, written symmetrised by pymatgen:

    python tools/compare_cif_readers.py FOLDER --write mp/megnet.json.zip --count 500

A difference is a crystal of other atoms, of another cell, or of atoms elsewhere (by more than
0.01 A); a file that only one of the two reads is listed too. The exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from recinet_ase.errors import reason_of
from recinet_ase.io import find_sources, read_entries

TOLERANCE = 0.01  # angstrom


def write_cifs(folder: Path, source: Path, count: int, seed: int, tolerance: float) -> None:
    """Write randomly chosen crystals with the operations of their symmetry.

    Args:
        folder: Made if needed.
        source: ``megnet.json.zip``: a list of records with JARVIS ``atoms``.
        count: How many.
        seed: Of the choice.
        tolerance: Of the symmetry, in angstrom.
    """
    from pymatgen.core import Structure
    from pymatgen.io.cif import CifWriter

    with zipfile.ZipFile(source) as archive:
        records = json.loads(archive.read(archive.namelist()[0]))
    folder.mkdir(parents=True, exist_ok=True)
    for i in np.random.default_rng(seed).permutation(len(records))[:count]:
        atoms = records[i]["atoms"]
        structure = Structure(
            atoms["lattice_mat"],
            [symbol.strip() for symbol in atoms["elements"]],
            atoms["coords"],
            coords_are_cartesian=atoms.get("cartesian", False),
        )
        writer = CifWriter(structure, symprec=tolerance, significant_figures=8)
        name = str(records[i].get("id") or records[i].get("jid") or i)
        writer.write_file(folder / f"{name}.cif")


def pymatgen_structures(path: Path) -> list[Any]:
    """The structures of a file, or why pymatgen has none."""
    from pymatgen.io.cif import CifParser

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return CifParser(path).parse_structures(primitive=False, check_occu=True)
    except Exception as error:
        return [error]


def difference(ours: Any, theirs: Any) -> str:
    """In what two readings of one crystal differ, ``""`` if in nothing."""
    failed = [isinstance(one, Exception) for one in (ours, theirs)]
    if all(failed):
        return ""
    if failed[0]:
        return f"only pymatgen reads it (here: {reason_of(ours)[:150]})"
    if failed[1]:
        return f"only this package reads it (pymatgen: {reason_of(theirs)[:150]})"
    if not theirs.is_ordered:
        return "pymatgen reads it as disordered"
    cell = np.array(theirs.lattice.parameters)
    if not np.allclose(ours.cell.cellpar(), cell, rtol=1e-5, atol=1e-4):
        return f"cells {np.round(ours.cell.cellpar(), 4)} and {np.round(cell, 4)}"
    numbers = np.array([site.specie.Z for site in theirs])
    if sorted(numbers) != sorted(ours.numbers):
        return f"{ours.get_chemical_formula()} and {theirs.composition.formula}"
    offsets = ours.get_scaled_positions()[:, None] - theirs.frac_coords[None]
    offsets -= np.round(offsets)
    distances = np.linalg.norm(offsets @ ours.cell.array, axis=2)
    distances[ours.numbers[:, None] != numbers] = np.inf
    nearest = distances.argmin(axis=1)
    worst = distances.min(axis=1).max()
    if worst > TOLERANCE or len(set(nearest)) != len(nearest):
        return f"an atom lies {worst:.3g} A from where pymatgen has it"
    return ""


def main() -> int:
    """Compare, or write and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, help="megnet.json.zip to write crystals of first")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--symprec", type=float, default=0.01, help="angstrom")
    options = parser.parse_args()
    if options.write is not None:
        write_cifs(options.folder, options.write, options.count, options.seed, options.symprec)
    paths = sorted(options.folder.rglob("*.cif"))
    differences = 0
    for path in paths:
        ours = [entry.atoms for entry in read_entries(find_sources([str(path)]))]
        theirs = pymatgen_structures(path)
        if len(ours) != len(theirs):
            texts = [f"{len(ours)} structures here, {len(theirs)} by pymatgen"]
        else:
            texts = [difference(*pair) for pair in zip(ours, theirs, strict=True)]
        for text in filter(None, texts):
            differences += 1
            print(f"{path}: {text}")
    print(f"{len(paths)} files, {differences} differences", file=sys.stderr)
    return int(differences > 0)


if __name__ == "__main__":
    sys.exit(main())
