"""Structures that other packages hand over in objects of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.db import connect
from ase.io import Trajectory
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import AseAtomsAdaptor

from recinet_ase import Predictor, predict, predict_structure
from recinet_ase.errors import StructureError
from recinet_ase.graph.adapters import to_crystal


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("jarvis-mbj", device="cpu", intervals=False)


@pytest.fixture
def salt() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.64)


def test_trajectories_rows_entries_and_phonopys_atoms(
    salt: Atoms, predictor: Predictor, tmp_path: Path
) -> None:
    wanted = predictor.predict(salt)["bandgap"]
    with Trajectory(str(tmp_path / "a.traj"), "w") as trajectory:
        trajectory.write(salt)
        trajectory.write(salt)
    with connect(tmp_path / "a.db") as database:
        database.write(salt)
    (row,) = connect(tmp_path / "a.db").select()
    entry = ComputedStructureEntry(AseAtomsAdaptor.get_structure(salt), -1.0)
    with Trajectory(str(tmp_path / "a.traj")) as trajectory:
        results = predict(trajectory, predictor)
    assert len(results) == 2
    results += predict([row, entry], predictor)
    for result in results:
        assert not result.error and (result.formula, result.n_atoms) == ("NaCl", 2)
        assert result.values["bandgap"] == pytest.approx(wanted, abs=1e-5)
    assert predict_structure(row, predictor)["bandgap"] == pytest.approx(wanted, abs=1e-5)


def test_phonopys_atoms(salt: Atoms, predictor: Predictor) -> None:
    pytest.importorskip("phonopy")
    from phonopy.structure.atoms import PhonopyAtoms

    atoms = PhonopyAtoms(
        symbols=salt.get_chemical_symbols(),
        cell=salt.cell.array,
        scaled_positions=salt.get_scaled_positions(),
    )
    (result,) = predict([atoms], predictor)
    assert result.values["bandgap"] == pytest.approx(predictor.predict(salt)["bandgap"], abs=1e-5)
    np.testing.assert_allclose(to_crystal(atoms).lattice, salt.cell.array)


def test_occupancies_left_over_say_what_to_do(salt: Atoms, predictor: Predictor) -> None:
    salt.info["occupancy"] = {"0": {"Na": 0.5, "K": 0.5}, "1": {"Cl": 1.0}}
    with pytest.raises(StructureError, match=r"delete atoms.info\['occupancy'\]"):
        predictor.predict(salt)
    del salt.info["occupancy"]
    assert predictor.predict(salt)


def test_what_is_no_structure_is_told_what_is(predictor: Predictor) -> None:
    (result,) = predict([3], predictor)
    assert "pass ASE Atoms (or a database row), a pymatgen Structure" in result.error
