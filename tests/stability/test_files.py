"""References of one's own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk
from ase.db import connect
from click.testing import CliRunner
from monty.json import MontyEncoder
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from pymatgen.entries.computed_entries import ComputedEntry

from recinet_ase.cli.screen import screen
from recinet_ase.errors import ReciNetError
from recinet_ase.stability import Hull
from recinet_ase.stability.derived import choose_hull

ROWS = [("Mg", 0.0), ("O2", 0.0), ("Ti", 0.0), ("MgO", -3.0), ("TiO2", -3.2)]


def expected(hull: Hull) -> None:
    assert hull.energy("MgTiO3") == pytest.approx(-3.12, abs=1e-9)
    assert hull.missing("MgTiO3") == []


def test_tables(tmp_path: Path) -> None:
    text = "Formula, formation_energy_per_atom ,id\n" + "".join(f"{f},{e},x-{f}\n" for f, e in ROWS)
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    records = [{"formula_pretty": f, "e_form": e, "material_id": f"x-{f}"} for f, e in ROWS]
    (tmp_path / "a.json").write_text(json.dumps(records))
    for name in ("a.csv", "a.csv.gz", "a.json"):
        hull = Hull.read(tmp_path / name)
        expected(hull)
        assert hull.functional == "" and hull.name == name
        assert {p.id for p in hull.phases("Mg-O")} == {"x-Mg", "x-O2", "x-MgO"}
    records = [{**record, "functional": "PBE"} for record in records]
    (tmp_path / "b.json").write_text(json.dumps({"entries": records}))
    assert Hull.read(tmp_path / "b.json").functional == "PBE"


def test_databases_of_structures(tmp_path: Path) -> None:
    for name in ("a.db", "a.json"):
        with connect(tmp_path / name) as database:
            database.write(bulk("Mg"), formation_energy=0.0)
            database.write(bulk("MgO", "rocksalt", 4.2), formation_energy=-3.0, jid="J-1")
        hull = Hull.read(tmp_path / name)
        assert hull.energy("MgO") == -3.0 and hull.missing("MgO") == ["no elemental O"]
    (tmp_path / "records.json").write_text(
        json.dumps(
            [{"jid": "J-2", "formation_energy_peratom": -3.0, "atoms": {
                "lattice_mat": [[0, 2.1, 2.1], [2.1, 0, 2.1], [2.1, 2.1, 0]],
                "coords": [[0, 0, 0], [0.5, 0.5, 0.5]], "elements": ["Mg", "O"],
            }}]
        )
    )  # fmt: skip
    assert [p.id for p in Hull.read(tmp_path / "records.json").phases("Mg-O")] == ["J-2"]


def entries(run_type: str | None = "GGA") -> list[ComputedEntry]:
    zero = {"Mg": -1.5, "O": -4.9, "Ti": -7.8}
    found = []
    for formula, energy in ROWS:
        composition = Composition(formula)
        total = energy * composition.num_atoms + sum(
            zero[e] * n for e, n in composition.get_el_amt_dict().items()
        )
        # Its own correction must not be forgotten.
        found.append(
            ComputedEntry(
                composition, total - 0.5, correction=0.5, entry_id=f"mp-{formula}",
                parameters={"run_type": run_type} if run_type else {},
            )
        )  # fmt: skip
    return found


def test_entries_of_pymatgen(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps([e.as_dict() for e in entries()]))
    hull = Hull.read(tmp_path / "e.json")
    expected(hull)
    assert hull.functional == "PBE"  # GGA and GGA+U with the Materials Project's corrections
    assert [str(c) for c in hull.decomposition("MgO")] == ["1.00 MgO [mp-MgO]"]
    diagram = PhaseDiagram([PDEntry(e.composition, e.energy) for e in entries()])
    (tmp_path / "d.json").write_text(json.dumps(diagram, cls=MontyEncoder))
    expected(Hull.read(tmp_path / "d.json"))


BAD = {
    "an unknown formula": ("formula,formation_energy\nMgO,-3\nXy2,-1\n", r"line 3: 'Xy2' is no"),
    "nan": ("formula,formation_energy\nMgO,nan\n", r"line 2 \(MgO\): the formation energy is nan"),
    "no number": (
        "formula,formation_energy\nMgO,low\n",
        r"line 2: the formation energy 'low' is no",
    ),
    "an empty cell": (
        "formula,formation_energy\nMgO,\n",
        r"line 2 \(MgO\) has no formation energy",
    ),
    "no energies": (
        "formula,gap\nMgO,5\n",
        r"line 2 has no formation energy .* it has formula, gap",
    ),
    "no formula": ("name,formation_energy\nMgO,-3\n", r"line 2 has no formula \(one of formula"),
    "no rows": ("formula,formation_energy\n", r"has no rows"),
    "two levels": (
        "formula,formation_energy,functional\nMgO,-3,PBE\nMg,0,OptB88vdW\n",
        r"line 3 is at the level of OptB88vdW, .*line 2 at that of PBE",
    ),
    "total energies": (
        "formula,formation_energy\nMgO,-11.9\nMg,-1.5\nTiO2,-26.9\n",
        r"line 4 \(TiO2\): -26.9 eV/atom, and half of the energies are beyond -11.9; formation",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_one_line_and_exit_2(kind: str, tmp_path: Path, atoms_file: Path) -> None:
    text, message = BAD[kind]
    path = tmp_path / "refs.csv"
    path.write_text(text)
    with pytest.raises(ReciNetError, match=message):
        Hull.read(path)
    found = CliRunner().invoke(
        screen, [str(atoms_file), "--props", "ehull", "--hull", str(path), "--device", "cpu"]
    )
    assert found.exit_code == 2 and found.stdout == ""
    assert str(path) in found.stderr and len(found.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def atoms_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("structures") / "mgo.extxyz"
    bulk("MgO", "rocksalt", 4.22).write(path)
    return path


def bad_entries() -> list[tuple[Any, str]]:
    without = [e.as_dict() for e in entries(None)]
    mixed = [e.as_dict() for e in entries()]
    mixed[3]["parameters"]["run_type"] = "r2SCAN"
    lacking = [e.as_dict() for e in entries() if e.composition.formula != "Ti1"]
    broken = [{"@class": "ComputedEntry", "energy": 1.0}]
    return [
        (without, r"row 1 \(Mg\) does not state its level of theory"),
        (mixed, r"row 4 \(MgO\) is at the level of r2SCAN, .*row 1 \(Mg\) at that of PBE"),
        (lacking, r"no entry of elemental Ti"),
        (broken, "row 1 is no entry of pymatgen"),
        ([1, 2], "row 1 is no record"),
    ]


@pytest.mark.parametrize("number", range(5))
def test_bad_entries(number: int, tmp_path: Path) -> None:
    document, message = bad_entries()[number]
    (tmp_path / "e.json").write_text(json.dumps(document))
    with pytest.raises(ReciNetError, match=message):
        Hull.read(tmp_path / "e.json")


def test_levels_of_theory_are_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps([e.as_dict() for e in entries()]))
    with pytest.raises(ReciNetError, match=r"e.json are formation energies .* PBE, mine predicts"):
        choose_hull(str(tmp_path / "e.json"), "OptB88vdW", "mine")
    with pytest.raises(ReciNetError, match="mp are formation energies at the level of PBE"):
        choose_hull("mp", "OptB88vdW", "mine")
    with pytest.raises(ReciNetError, match="no such references: .*nothing.csv"):
        choose_hull("nothing.csv", "PBE", "mine")
    with pytest.raises(ReciNetError, match=r"OptB88vdW \(jarvis\) and PBE \(mp\) only"):
        choose_hull(None, "r2SCAN", "mine")
    both = choose_hull(["mp", str(tmp_path / "e.json")], "PBE", "mine")
    assert both is not None and both.name == "mp + e.json"
    assert both.energy("MgO") <= min(-3.0, Hull.load("mp").energy("MgO"))
