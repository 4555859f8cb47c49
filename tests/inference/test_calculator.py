"""The ASE calculator."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculatorSetupError, PropertyNotImplementedError
from support import random_model

from recinet_ase import Predictor, ReciNetCalculator, StructureError, UnknownNameError


def test_get_property(model_folder: Path, crystals: dict[str, Atoms]) -> None:
    atoms = crystals["Si2"].copy()
    atoms.calc = ReciNetCalculator(model_folder, device="cpu")
    value = atoms.calc.get_property("bandgap", atoms)
    assert isinstance(value, float)
    assert value == pytest.approx(Predictor(model_folder, device="cpu").predict(atoms)["bandgap"])
    assert atoms.calc.get_property("gap", atoms) == value, "aliases"
    assert atoms.calc.results["bandgap"] == value
    assert atoms.calc.implemented_properties == ["bandgap"]
    assert atoms.calc.units == {"bandgap": "eV"}


def test_results_are_kept_until_something_changes(
    model_folder: Path, crystals: dict[str, Atoms], monkeypatch: pytest.MonkeyPatch
) -> None:
    atoms = crystals["Si2"].copy()
    calc = ReciNetCalculator(model_folder, device="cpu")
    atoms.calc = calc
    runs = []
    predict = calc.predictor.predict_many
    monkeypatch.setattr(calc.predictor, "predict_many", lambda a: (runs.append(1), predict(a))[1])
    first = calc.get_property("bandgap", atoms)
    assert calc.get_property("bandgap", atoms) == first and len(runs) == 1
    atoms.positions[0, 0] += 0.1
    moved = calc.get_property("bandgap", atoms)
    assert moved != first and len(runs) == 2
    atoms.set_cell(atoms.cell.array * 1.02, scale_atoms=True)
    assert calc.get_property("bandgap", atoms) != moved and len(runs) == 3
    atoms.numbers[0] = 6
    calc.get_property("bandgap", atoms)
    assert len(runs) == 4
    atoms.pbc = False
    with pytest.raises(StructureError, match="no periodicity"):
        calc.get_property("bandgap", atoms)
    assert calc.get_property("bandgap", crystals["Si2"]) == first


def test_what_a_model_does_not_give(model_folder: Path, crystals: dict[str, Atoms]) -> None:
    atoms = crystals["Si2"].copy()
    atoms.calc = ReciNetCalculator(model_folder, device="cpu")
    with pytest.raises(PropertyNotImplementedError, match="gives no 'energy'; it gives: bandgap"):
        atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match="gives no 'ehull'"):
        atoms.calc.get_property("ehull", atoms)
    with pytest.raises(PropertyNotImplementedError, match="gives no 'forces'"):
        atoms.get_forces()


def test_energy_is_that_of_the_cell(total_energy_folder: Path) -> None:
    calc = ReciNetCalculator(total_energy_folder, device="cpu")
    small, large = bulk("NaCl", "rocksalt", a=5.64), bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    for atoms in (small, large):
        atoms.calc = calc
    assert large.get_potential_energy() == pytest.approx(4 * small.get_potential_energy(), rel=1e-5)
    per_atom = calc.get_property("total_energy", small)
    assert small.get_potential_energy() == pytest.approx(2 * per_atom)
    assert calc.units == {"total_energy": "eV/atom", "energy": "eV"}


def test_several_models(model_folder: Path, total_energy_folder: Path) -> None:
    calc = ReciNetCalculator([model_folder, total_energy_folder], device="cpu")
    atoms = bulk("Si")
    atoms.calc = calc
    calc.get_property("bandgap", atoms)
    assert set(calc.results) == {"bandgap", "total_energy", "energy"}
    assert calc.implemented_properties == ["bandgap", "total_energy", "energy"]
    assert ReciNetCalculator.implemented_properties == [], "no state shared between instances"


def test_models_and_names(model_folder: Path) -> None:
    assert ReciNetCalculator(str(model_folder), device="cpu").models == {"bandgap": "random"}
    assert ReciNetCalculator(random_model(), device="cpu").implemented_properties == ["bandgap"]
    with pytest.raises(UnknownNameError, match="unknown model"):
        ReciNetCalculator("jarvis-mbjj")


def test_copies_and_pickles(model_folder: Path) -> None:
    atoms = bulk("Si")
    atoms.calc = ReciNetCalculator(model_folder, device="cpu")
    value = atoms.calc.get_property("bandgap", atoms)
    for twin in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):
        twin.calc.reset()
        assert twin.calc.get_property("bandgap", twin) == value
    assert atoms.copy().calc is None


def test_one_model_may_refuse_while_another_answers() -> None:
    calc = ReciNetCalculator(
        [random_model(elements=(11, 17)), random_model(properties=("ehull",))], device="cpu"
    )
    copper = bulk("Cu")
    assert isinstance(calc.get_property("ehull", copper), float)
    with pytest.raises(StructureError, match="not trained on Cu"):
        calc.get_property("bandgap", copper)
    assert isinstance(calc.get_property("ehull", copper), float)


def test_what_ase_collects(total_energy_folder: Path) -> None:
    atoms = bulk("Si")
    atoms.calc = ReciNetCalculator(total_energy_folder, device="cpu")
    energy = atoms.get_potential_energy()
    assert dict(atoms.calc.export_properties()) == {"energy": energy}
    assert atoms.get_properties(["energy"])["energy"] == energy


def test_calls_without_atoms(model_folder: Path) -> None:
    with pytest.raises(CalculatorSetupError, match="no atoms"):
        ReciNetCalculator(model_folder, device="cpu").get_property("bandgap")
    atoms = bulk("Si")
    calc = ReciNetCalculator(model_folder, device="cpu", atoms=atoms)
    assert atoms.calc is calc
    assert calc.get_property("bandgap", atoms) == calc.get_property("bandgap")
    with pytest.raises(TypeError, match="devise"):
        ReciNetCalculator(model_folder, devise="cpu")  # type: ignore[call-arg]


def test_the_callers_model_stays_as_it_was() -> None:
    model = random_model().train()
    ReciNetCalculator(model, device="cpu", dtype="float64")
    assert model.training and next(model.parameters()).dtype == torch.float32


def test_a_bad_structure_says_why(model_folder: Path) -> None:
    atoms = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]], calculator=None)
    atoms.calc = ReciNetCalculator(model_folder, device="cpu")
    with pytest.raises(StructureError, match="no periodicity"):
        atoms.calc.get_property("bandgap", atoms)
    assert atoms.calc.results == {}


def test_attached_atoms_need_not_be_passed(model_folder: Path) -> None:
    first, second = bulk("Si"), bulk("Cu")
    calc = first.calc = ReciNetCalculator(model_folder, device="cpu")
    value = first.calc.get_property("bandgap")
    assert value == calc.get_property("bandgap", first.copy())
    first.set_cell(1.1 * first.cell, scale_atoms=True)
    assert first.calc.get_property("bandgap") != value  # no number of an earlier cell
    second.calc = shared = ReciNetCalculator(model_folder, device="cpu")
    first.calc = shared
    with pytest.raises(CalculatorSetupError, match="several that share"):
        shared.get_property("bandgap")
    second.calc = None
    assert shared.get_property("bandgap") == calc.get_property("bandgap", first)
