"""Formats whose symmetry, elements or disorder ASE's readers pass over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.res import write_res

from recinet_ase.errors import ReciNetError
from recinet_ase.io import find_sources, read_entries
from recinet_ase.io.convert import to_atoms
from recinet_ase.io.poscar import parse_poscar
from recinet_ase.io.shelx import parse_shelx


def read_one(path: Path, text: str) -> Atoms:
    path.write_text(text)
    (entry,) = read_entries(find_sources([str(path)]))
    if isinstance(entry.atoms, Exception):
        raise entry.atoms
    assert isinstance(entry.atoms, Atoms)
    return entry.atoms


def counts(atoms: Atoms) -> dict[str, int]:
    return dict(atoms.symbols.formula.count())


# SHELX

RUTILE = """TITL rutile in P42/mnm
CELL 0.71073 4.594 4.594 2.959 90 90 90
ZERR 2 0.001 0.001 0.001 0 0 0
LATT {latt}
SYMM -x,-y,z
SYMM -y+1/2,x+1/2,z+1/2
SYMM y+1/2,-x+1/2,z+1/2
SYMM -x+1/2,y+1/2,-z+1/2
SYMM x+1/2,-y+1/2,-z+1/2
SYMM y,x,-z
SYMM -y,-x,-z
SFAC TI O
UNIT 2 4
L.S. 4
WGHT 0.1 =
  0.2
FVAR 0.5
TI1 1 0 0 0 {ti} 0.01
O1 2 10.3053 10.3053 0 10.25 0.01
HKLF 4
Q1 1 0.2 0.1 0.3 11.0 0.05 1.2
END
"""


def test_symmetry_of_shelx_files() -> None:
    atoms = parse_shelx(RUTILE.format(latt=1, ti=10.125))
    assert counts(atoms) == {"Ti": 2, "O": 4}
    distances = atoms.get_all_distances(mic=True)[0][atoms.numbers == 8]
    assert np.sort(distances)[:2] == pytest.approx([1.947, 1.947], abs=0.01)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("10.125", "10.06"), "^disordered: TI1 has the occupancy 0.48"),
        (("10.125", "21.0"), "ties a value to a free variable"),
        (("LATT 1\n", ""), "no LATT"),
        (("SFAC TI O", "SFAC TI XX"), "'XX', which is no element"),
        (("O1 2", "O1 3"), "element 3 of SFAC, which has 2"),
        (("O1 2", "PART 1\nO1 2"), "^disordered: .*PART"),
        (("O1 2 10.3053", "O1 2 abc"), "is not understood"),
        (("SYMM y,x,-z\n", ""), "are no group"),
        (("CELL 0.71073 4.594", "CELL 0.71073"), "no complete CELL"),
        (("O1 2", " O1 2"), "may be an atom or a comment"),
    ],
)
def test_shelx_files_that_are_not_understood(change: tuple[str, str], reason: str) -> None:
    text = RUTILE.format(latt=1, ti=10.125)
    assert change[0] in text
    with pytest.raises(ReciNetError, match=reason):
        parse_shelx(text.replace(*change))


def test_files_of_airss_keep_their_energy(tmp_path: Path) -> None:
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.calc = SinglePointCalculator(atoms, energy=-7.25)
    atoms.info = {"name": "salt", "pressure": 0.5, "spacegroup": "Fm-3m", "times_found": 3}
    write_res(str(tmp_path / "a.res"), atoms, write_info=False)
    (entry,) = read_entries(find_sources([str(tmp_path / "a.res")]))
    assert isinstance(entry.atoms, Atoms) and counts(entry.atoms) == {"Na": 1, "Cl": 1}
    assert entry.atoms.get_potential_energy() == -7.25
    assert entry.values["name"] == "salt" and entry.values["pressure"] == 0.5
    text = (tmp_path / "a.res").read_text()
    indented = parse_shelx(text.replace("\nCl", "\n Cl"))
    assert indented == entry.atoms and text.count("\nCl") == 1


# PDB

PDB = """CRYST1    5.640    5.640    5.640  90.00  90.00  90.00 {:<11}   1
ATOM      1 NA   MOL     1       0.000   0.000   0.000  1.00  0.00          NA
ATOM      2 CL   MOL     1       2.820   2.820   2.820  1.00  0.00          CL
END
"""


SCALE = """SCALE1     {:9.6f}  0.000000  0.000000        0.00000
SCALE2      0.000000  0.177305  0.000000        0.00000
SCALE3      0.000000  0.000000  0.177305        0.00000
ATOM      1"""


def test_space_groups_of_pdb_files(tmp_path: Path) -> None:
    path = tmp_path / "a.pdb"
    assert counts(read_one(path, PDB.format("F m -3 m"))) == {"Na": 4, "Cl": 4}
    assert counts(read_one(path, PDB.format("P 1"))) == {"Na": 1, "Cl": 1}
    text = PDB.format("F m -3 m")
    usual = text.replace("ATOM      1", SCALE.format(0.177305))
    assert counts(read_one(path, usual)) == {"Na": 4, "Cl": 4}
    for old, new, reason in (
        ("F m -3 m", "Q 1 2 3 ", "'Q 1 2 3' is not known"),
        ("2 CL   MOL", "2 CL  AMOL", "^disordered: .*alternative locations"),
        ("1.00  0.00          CL", "0.50  0.00          CL", "^disordered: atom 1 has the occupa"),
        ("1.00  0.00          CL", "1.00  0.00            ", "no element symbols"),
        ("END", f"{'MTRIX1   1  1.0 0.0 0.0        0.0':<59} \nEND", "copies of its atoms"),
        ("ATOM      1", SCALE.format(-0.177305), "axes .SCALE. are not the usual ones"),
    ):
        assert old in text
        with pytest.raises(ReciNetError, match=reason):
            read_one(path, text.replace(old, new))


# LAMMPS, Quantum ESPRESSO and others


def test_types_are_no_elements(tmp_path: Path) -> None:
    dump = (
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 3\n0 3\n0 3\n"
        "ITEM: ATOMS id type {}x y z\n1 1 {}0 0 0\n"
    )
    assert counts(read_one(tmp_path / "a.dump", dump.format("element ", "Po "))) == {"Po": 1}
    good = dump.format("element ", "Po ")
    for bad, reason in (
        (dump.format("", ""), "names no elements; write it with"),
        (f"ITEM: UNITS\nlj\n{good}", "in the units 'lj'"),
        (f"ITEM: UNITS\nmetal\n{good}".replace("BOUNDS pp", "BOUNDS abc origin pp"), "triclinic"),
    ):
        with pytest.raises(ReciNetError, match=reason):
            read_one(tmp_path / "b.dump", bad)
    forces = good.replace("y z", "y z fx fy fz").replace("0 0 0\n", "0 0 0 1 2 3\n")
    atoms = read_one(tmp_path / "f.dump", forces)
    assert atoms.calc.results["forces"].tolist() == [[1, 2, 3]]
    assert "energy" not in atoms.calc.results  # which such a file does not state
    for masses, reason in (
        ("", "has no masses"),
        ("Masses\n\n1 1.0\n\n", None),
        ("Masses\n\n1 17.3\n\n", "masses that are no element's"),
    ):
        path = tmp_path / "c.lammps-data"
        path.write_text(
            "LAMMPS data file\n\n1 atoms\n1 atom types\n\n0 3 xlo xhi\n0 3 ylo yhi\n0 3 zlo zhi\n\n"
            f"{masses}Atoms # atomic\n\n1 1 0 0 0\n"
        )
        try:
            sources = find_sources([str(path)])
        except ReciNetError:  # ASE knows such a file by its name alone
            path = path.rename(tmp_path / "data.lammps")
            pytest.skip("this release of ASE does not recognise the file")
        (entry,) = read_entries(sources)
        assert isinstance(entry.atoms, Exception) == (reason is not None)
        assert reason is None or reason in str(entry.atoms)


def test_space_groups_in_inputs_of_programs(tmp_path: Path) -> None:
    path = tmp_path / "a.pwi"
    ase.io.write(path, bulk("Si"), format="espresso-in", pseudopotentials={"Si": "Si.upf"})
    text = path.read_text()
    assert counts(read_one(path, text)) == {"Si": 2}
    changed = text.replace("&SYSTEM", "&SYSTEM\n   space_group = 227")
    assert changed != text
    with pytest.raises(ReciNetError, match="states a space group"):
        read_one(path, changed)


# POSCAR

POSCAR = "{}\n1.0\n0 2.82 2.82\n2.82 0 2.82\n2.82 2.82 0\n{}1 1\nDirect\n0 0 0\n.5 .5 .5\n"


def test_symbols_of_a_poscar(tmp_path: Path) -> None:
    for line, wanted in (
        ("Na Cl\n", "NaCl"),
        ("NA CL\n", "NaCl"),
        ("Li_sv D\n", "LiH"),
        ("Na_pv/3f1 Cl/ab\n", "NaCl"),
    ):
        assert str(parse_poscar(POSCAR.format("comment", line)).symbols) == wanted
    for line in ("Na CN\n", "Na X\n", "NaCl Cl\n"):
        with pytest.raises(ReciNetError, match="which is no element"):
            parse_poscar(POSCAR.format("comment", line))
    assert str(parse_poscar(POSCAR.format("Na Cl", "")).symbols) == "NaCl"
    for comment in ("No In run 5", "Na", "He is here today"):
        with pytest.raises(ReciNetError, match="names no elements"):
            parse_poscar(POSCAR.format(comment, ""))
    (tmp_path / "POTCAR").write_text("  PAW_PBE Li_sv 10Sep2004\n  VRHFIN =Li: s1p0\n")
    path = tmp_path / "POSCAR"
    path.write_text(POSCAR.format("No In run 5", ""))
    (entry,) = read_entries(find_sources([str(path)]))
    assert isinstance(entry.atoms, Exception)  # the POTCAR has one element, not two


# OPTIMADE


def optimade(**changes: Any) -> dict[str, Any]:
    attributes = {
        "lattice_vectors": [[0, 2.82, 2.82], [2.82, 0, 2.82], [2.82, 2.82, 0]],
        "cartesian_site_positions": [[0, 0, 0], [2.82, 2.82, 2.82]],
        "species_at_sites": ["sodium", "Cl"],
        "species": [
            {"name": "sodium", "chemical_symbols": ["Na"], "concentration": [1.0]},
            {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1.0]},
        ],
        "nelements": 2,
        **changes,
    }
    return {"id": "odbx/1", "type": "structures", "attributes": attributes}


def test_optimade_responses(tmp_path: Path) -> None:
    for name, document in (
        ("list", {"data": [optimade(), optimade()], "meta": {}}),
        ("one", {"data": optimade()}),
        ("records", [optimade()]),
    ):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document))
        for entry in read_entries(find_sources([str(path)])):
            assert isinstance(entry.atoms, Atoms) and counts(entry.atoms) == {"Na": 1, "Cl": 1}
            assert entry.id == "odbx/1" and entry.values["nelements"] == 2
    mixed = {"name": "Cl", "chemical_symbols": ["Cl", "vacancy"], "concentration": [0.5, 0.5]}
    group = {"name": "Cl", "chemical_symbols": ["O"], "concentration": [1], "attached": ["H"]}
    for changes, reason in (
        ({"species": [mixed]}, "disordered"),
        ({"species": [group]}, "attached"),
        ({"assemblies": [{"sites_in_groups": [[0], [1]]}]}, "disordered"),
        ({"species_at_sites": ["Na"]}, "positions have shape"),
        ({"species": [], "species_at_sites": ["Na", "Q"]}, "no element"),
    ):
        with pytest.raises(ReciNetError, match=reason):
            to_atoms(optimade(**changes))
