"""The calculator among ASE's own tools: what ASE checks, collects, copies and writes."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import (
    BaseCalculator,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    all_properties,
)
from ase.calculators.mixing import LinearCombinationCalculator
from ase.db import connect
from ase.eos import calculate_eos
from ase.io import read, write
from support import random_model

from recinet_ase import (
    Predictor,
    ReciNetCalculator,
    ReciNetError,
    StructureError,
    UnknownNameError,
    annotate,
    key_value_pairs,
    predict,
    predict_structure,
)
from recinet_ase.formula import formula_of
from recinet_ase.inference.predict import default_models
from recinet_ase.pretrained import available_models, model_properties

CHANGES = {
    "positions": lambda atoms: atoms.positions.__setitem__((0, 0), 0.1),
    "numbers": lambda atoms: atoms.numbers.__setitem__(0, 32),
    "cell": lambda atoms: atoms.set_cell(atoms.cell.array * 1.01),
    "pbc": lambda atoms: atoms.set_pbc((True, True, False)),
    "initial_charges": lambda atoms: atoms.set_initial_charges([1.0, -1.0]),
    "initial_magmoms": lambda atoms: atoms.set_initial_magnetic_moments([1.0, -1.0]),
}
"""One change of each kind that ASE knows."""


@pytest.fixture
def calc(total_energy_folder: Path) -> ReciNetCalculator:
    return ReciNetCalculator(total_energy_folder, device="cpu")


@pytest.mark.parametrize("kind", all_changes)
def test_what_ase_takes_for_a_change(calc: ReciNetCalculator, kind: str) -> None:
    """ASE's `check_state` and `calculation_required`, for each change that ASE knows."""
    atoms = bulk("Si")
    assert calc.calculation_required(atoms, ["energy"])
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    assert calc.check_state(atoms) == [] and not calc.calculation_required(atoms, ["energy"])
    CHANGES[kind](atoms)
    if kind in calc.ignored_changes:
        assert calc.check_state(atoms) == [] and atoms.get_potential_energy() == energy
    else:
        assert calc.check_state(atoms) == [kind]
        assert calc.calculation_required(atoms, ["energy"])
        assert calc.get_property("energy", atoms, allow_calculation=False) is None
        assert calc.results == {} and calc.warnings == ()


def test_what_means_nothing_to_the_models(calc: ReciNetCalculator) -> None:
    atoms = bulk("Si")
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    results = calc.results
    atoms.info["label"] = "silicon"
    atoms.set_array("weights", np.ones(2))
    atoms.set_momenta(np.ones((2, 3)))
    atoms.set_tags([1, 2])
    assert atoms.get_potential_energy() == energy
    assert calc.results is results, "nothing was calculated again"


def test_every_property_that_ase_knows(calc: ReciNetCalculator) -> None:
    atoms = bulk("Si")
    atoms.calc = calc
    assert isinstance(calc, Calculator) and isinstance(calc, BaseCalculator)
    for name in all_properties:
        if name == "energy":
            assert isinstance(calc.get_property(name, atoms), float)
        else:
            with pytest.raises(PropertyNotImplementedError, match=f"gives no '{name}'"):
                calc.get_property(name, atoms)
    for getter in (atoms.get_forces, atoms.get_stress, atoms.get_magnetic_moment):
        with pytest.raises(PropertyNotImplementedError):
            getter()
    assert calc.calculate_properties(atoms, ["energy"])["energy"] == atoms.get_potential_energy()
    assert calc.get_atoms() == atoms and calc.get_atoms().calc is calc
    assert calc.todict() == {"models": {"total_energy": "random"}}
    calc.reset()
    assert calc.results == {} and calc.atoms is None


def test_ases_tools_take_the_calculator(calc: ReciNetCalculator) -> None:
    atoms = bulk("Si")
    atoms.calc = LinearCombinationCalculator([calc, calc], [0.25, 0.75])
    mixed = atoms.get_potential_energy()
    atoms.calc = calc
    assert mixed == pytest.approx(atoms.get_potential_energy())
    curve = calculate_eos(atoms, npoints=5, eps=0.02)
    assert len(curve.v) == 5 and np.ptp(curve.e) > 0


def test_copies_go_their_own_ways(calc: ReciNetCalculator) -> None:
    atoms = bulk("Si")
    atoms.calc = calc
    energy = atoms.get_potential_energy()
    assert atoms.copy().calc is None
    for twin in (copy.deepcopy(atoms), pickle.loads(pickle.dumps(atoms))):
        assert twin.calc is not calc and twin.calc.results == calc.results
        twin.positions[0, 0] += 0.2
        assert twin.get_potential_energy() != energy
        assert calc.results["energy"] == energy and twin.calc.units == calc.units


def test_calculators_in_threads(model_folder: Path, crystals: dict[str, Atoms]) -> None:
    shared = Predictor(model_folder, device="cpu")
    chosen = [atoms.copy() for atoms in crystals.values()][:12] * 2
    expected = [shared.predict(atoms)["bandgap"] for atoms in chosen]

    def gap(atoms: Atoms) -> float:
        atoms = atoms.copy()
        atoms.calc = ReciNetCalculator(shared)
        return atoms.calc.get_property("bandgap", atoms)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(gap, chosen)) == expected


def test_ways_to_name_models(model_folder: Path) -> None:
    atoms = bulk("Si")
    predictor = Predictor(model_folder, device="cpu")
    shared = ReciNetCalculator(predictor)
    assert shared.predictor is predictor
    assert shared.get_property("bandgap", atoms) == predictor.predict(atoms)["bandgap"]
    with pytest.raises(ReciNetError, match="has its device"):
        ReciNetCalculator(predictor, device="cpu")
    with pytest.raises(UnknownNameError, match="jarvis-mbj"):
        ReciNetCalculator("jarvis-mjb")


def test_all_models_at_once() -> None:
    calc = ReciNetCalculator("all", device="cpu")
    answered = {
        info.default_model for name in available_models() for info in model_properties(name)
    }
    assert default_models() == sorted(answered & set(available_models()))
    atoms = bulk("NaCl", "rocksalt", a=5.64)
    atoms.calc = calc
    assert calc.get_property("bandgap", atoms) > 4
    assert atoms.get_potential_energy() == pytest.approx(2 * calc.results["total_energy"])
    assert set(calc.results) == set(calc.units) == set(calc.implemented_properties)
    assert calc.results["in_domain"] is True
    for name, unit in calc.units.items():
        if name != "in_domain":
            assert unit or name.startswith(("dielectric", "spillage")), name
            assert calc.models[name] in available_models()


def test_annotated_crystals_survive_files(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    images = [crystals[name].copy() for name in ("Si2", "NaCl")]
    predictor = Predictor(["jarvis-mbj", "jarvis-etot"], device="cpu")
    for atoms in images:
        atoms.calc = calc = ReciNetCalculator(predictor)
        atoms.get_potential_energy()
        new = calc.annotate(atoms)
        assert new["recinet_bandgap"] == calc.results["bandgap"]
        assert new["recinet_bandgap_low"] == calc.results["bandgap_low"]
        assert (new["recinet_bandgap_unit"], new["recinet_bandgap_model"]) == ("eV", "jarvis-mbj")
        assert new["recinet_total_energy_unit"] == "eV/atom"
        assert new["recinet_in_domain"] is calc.results["in_domain"]
    for name in ("out.extxyz", "out.traj"):
        write(tmp_path / name, images)
        for atoms, twin in zip(images, read(tmp_path / name, ":"), strict=True):
            assert key_value_pairs(twin) == pytest.approx(key_value_pairs(atoms)), name
            assert all(type(v) in (float, str, bool) for v in key_value_pairs(twin).values())
            assert twin.get_potential_energy() == pytest.approx(atoms.get_potential_energy())
    for name in ("out.db", "out.json"):
        with connect(tmp_path / name) as db:
            for atoms in images:
                db.write(atoms, key_value_pairs=key_value_pairs(atoms))
        for atoms, row in zip(images, connect(tmp_path / name).select(), strict=True):
            assert row.key_value_pairs == pytest.approx(key_value_pairs(atoms))
            assert row.recinet_bandgap_unit == "eV"
            assert row.calculator == "recinet"
            assert row.calculator_parameters["models"]["bandgap"] == "jarvis-mbj"
        assert connect(tmp_path / name).count("recinet_bandgap>4") == 1


def test_annotations_and_other_entries(model_folder: Path) -> None:
    atoms = bulk("Si")
    atoms.info["bandgap"] = 1.12
    with pytest.raises(ReciNetError, match="no models"):
        annotate(atoms)
    with pytest.raises(ReciNetError, match="annotate them first"):
        key_value_pairs(atoms)
    first = annotate(atoms, random_model(seed=1))
    assert annotate(atoms, model_folder) != first, "our own entries are replaced"
    assert atoms.info["bandgap"] == 1.12
    atoms.info["dft_bandgap"] = 0.6
    with pytest.raises(ReciNetError, match=r"already has dft_bandgap; .* overwrite=True"):
        annotate(atoms, model_folder, prefix="dft_")
    assert atoms.info["dft_bandgap"] == 0.6 and "dft_bandgap_model" not in atoms.info
    annotate(atoms, model_folder, prefix="dft_", overwrite=True)
    assert atoms.info["dft_bandgap"] == atoms.info["recinet_bandgap"]
    assert set(key_value_pairs(atoms, "dft_")) == {
        "dft_bandgap",
        "dft_bandgap_unit",
        "dft_bandgap_model",
    }
    for prefix in ("", "re-", "recinet"):
        with pytest.raises(ReciNetError, match="cannot start the keys"):
            annotate(atoms, model_folder, prefix=prefix)
    with pytest.raises(StructureError, match="no periodicity"):
        annotate(Atoms("He"), model_folder)


def test_annotating_does_not_calculate_again(calc: ReciNetCalculator) -> None:
    atoms = bulk("Si")
    atoms.calc = calc
    atoms.get_potential_energy()
    results = calc.results
    assert annotate(atoms)["recinet_total_energy"] == results["total_energy"]
    assert calc.results is results
    bad = Atoms("He", calculator=calc)
    with pytest.raises(StructureError, match="no periodicity"):
        calc.annotate(bad)
    assert "recinet_total_energy" not in bad.info


def test_many_structures(
    model_folder: Path, crystals: dict[str, Atoms], capsys: pytest.CaptureFixture[str]
) -> None:
    calc = ReciNetCalculator(model_folder, device="cpu")
    silicon = crystals["Si2"]
    gap = calc.get_property("bandgap", silicon)
    batch = [*crystals.values(), Atoms("He")]
    results = calc.predict(batch)
    assert [r.formula for r in results] == [formula_of(a.get_chemical_symbols()) for a in batch]
    assert "no periodicity" in results[-1].error and results[-1].values == {}
    assert results[list(crystals).index("Si2")].values["bandgap"] == pytest.approx(gap, abs=1e-5)
    assert calc.results == {"bandgap": gap}, "the present results stay"
    assert capsys.readouterr() == ("", "")
    assert predict(batch, model_folder, device="cpu", progress=True) == results
    assert "100%" in capsys.readouterr().err
    assert predict(iter(batch[:3]), calc.predictor) == calc.predict(batch[:3])
    assert predict([], calc.predictor) == []
    assert predict_structure(silicon, model_folder, device="cpu") == {"bandgap": gap}
    with pytest.raises(ReciNetError, match="use predict_structure"):
        predict(silicon, calc.predictor)
