"""pymatgen's structures: every kind, disorder, and files read by both libraries."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from ase import Atoms
from ase.io import read, write
from pymatgen.core import IStructure, Lattice, Molecule, Structure
from pymatgen.core.ewald import EwaldSummation
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from recinet_ase import (
    Predictor,
    ReciNetCalculator,
    ReciNetError,
    StructureError,
    UnknownNameError,
    predict,
    predict_structure,
)
from recinet_ase.graph import ordering
from recinet_ase.graph.ordering import ordered

SOME = ("Si2", "NaCl", "BaTiO3", "Al4O6", "Mo2S4", "LaNi5", "GaAs", "Na")


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(["jarvis-mbj", "jarvis-eform"], device="cpu")


def rocksalt(cations: dict[str, float] | str, anions: dict[str, float] | str = "O") -> Structure:
    sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), [cations, anions], sites)


def test_every_kind_of_structure(predictor: Predictor, crystals: dict[str, Atoms]) -> None:
    for name in SOME:
        atoms = crystals[name]
        structure = AseAtomsAdaptor.get_structure(atoms)
        expected = predictor.predict(atoms)
        decorated = structure.copy()
        decorated.add_oxidation_state_by_element({e.symbol: 1.5 for e in structure.elements})
        for kind in (structure, IStructure.from_sites(structure), decorated, structure.as_dict()):
            assert predict_structure(kind, predictor) == pytest.approx(expected, abs=1e-5), name


def test_molecules_are_refused(predictor: Predictor) -> None:
    molecule = Molecule("CO", [[0, 0, 0], [0, 0, 1.13]])
    for order in (None, "ewald"):
        with pytest.raises(StructureError, match="Molecule has no periodicity"):
            predict_structure(molecule, predictor, order=order)
        (result,) = predict([molecule], predictor, order=order)
        assert "Molecule has no periodicity" in result.error


@pytest.mark.parametrize("suffix", ["cif", "vasp"])
def test_files_read_by_both_libraries(
    predictor: Predictor, crystals: dict[str, Atoms], tmp_path: Path, suffix: str
) -> None:
    for writer in ("ase", "pymatgen"):
        by_ase, by_pymatgen = [], []
        for name in SOME:
            path = tmp_path / f"{writer}-{name}.{suffix}"
            if writer == "ase":
                write(path, crystals[name])
            else:
                AseAtomsAdaptor.get_structure(crystals[name]).to(
                    path, fmt="cif" if suffix == "cif" else "poscar"
                )
            by_ase.append(read(path))
            by_pymatgen.append(
                Structure.from_file(path) if suffix == "cif" else Poscar.from_file(path).structure
            )
        first, second = predict(by_ase, predictor), predict(by_pymatgen, predictor)
        for name, one, two, atoms in zip(SOME, first, second, by_ase, strict=True):
            assert not one.error and not two.error
            assert one.values == pytest.approx(two.values, abs=2e-5), (writer, name)
            expected = predictor.predict(crystals[name])
            assert one.values == pytest.approx(expected, abs=2e-3), (writer, name, len(atoms))


def test_disorder_is_refused_by_default(predictor: Predictor) -> None:
    alloy = rocksalt({"Li": 0.5, "Fe": 0.5})
    with pytest.raises(StructureError, match=r"site 0 is disordered .*OrderDisordered"):
        predict_structure(alloy, predictor)
    with pytest.raises(UnknownNameError, match="did you mean 'ewald'"):
        predict_structure(alloy, predictor, order="ewlad")
    with pytest.raises(UnknownNameError, match="ewald"):
        predict([alloy], predictor, order="best")
    for single in (alloy, alloy.as_dict(), rocksalt("Mg")):
        with pytest.raises(ReciNetError, match="use predict_structure"):
            predict(single, predictor)


def test_pymatgens_own_way_to_calculate(crystals: dict[str, Atoms]) -> None:
    calc = ReciNetCalculator("jarvis-etot", device="cpu")
    structure = AseAtomsAdaptor.get_structure(crystals["NaCl"])
    result = structure.calculate(calculator=calc)
    expected = calc.predict_structure(structure)["total_energy"]
    assert result.results["total_energy"] == pytest.approx(expected, abs=1e-5)
    assert result.results["energy"] == pytest.approx(expected * len(structure), abs=1e-4)


def test_the_lowest_ewald_energy(predictor: Predictor) -> None:
    alloy = rocksalt({"Li": 0.5, "Fe": 0.5}) * (2, 1, 1)
    found = ordered(alloy, "ewald")
    energies = {}
    for lithium in itertools.combinations(range(8), 4):
        species = ["Li+" if i in lithium else "Fe3+" if i < 8 else "O2-" for i in range(16)]
        trial = Structure(alloy.lattice, species, alloy.frac_coords)
        energies[lithium] = EwaldSummation(trial).total_energy
    assert EwaldSummation(found).total_energy == pytest.approx(min(energies.values()))
    values = predict_structure(alloy, predictor, order="ewald")
    assert values == predict_structure(alloy.copy(), predictor, order="ewald"), "deterministic"
    assert values == pytest.approx(predictor.predict(found))
    (result,) = predict([alloy.as_dict()], predictor, order="ewald")
    assert result.values == pytest.approx(values, abs=1e-5)
    assert alloy.is_ordered is False, "the caller's structure stays as it was"
    tidy = rocksalt("Mg")
    assert ordered(tidy, "ewald") is tidy


def test_what_is_no_element(predictor: Predictor) -> None:
    for cations in ({"X0+": 1.0}, {"X0+": 0.5, "Mg2+": 0.5}):
        strange = rocksalt(cations, "O2-")
        (result,) = predict([strange], predictor, order="ewald")
        assert "'X', which is no element" in result.error
    heavy = Structure(Lattice.cubic(4.2), ["D+", "O2-"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    light = Structure(Lattice.cubic(4.2), ["H", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    assert predict_structure(heavy, predictor) == predict_structure(light, predictor)


def test_vacancies_and_given_charges() -> None:
    half = rocksalt({"Ti4+": 0.5}, "O2-")
    assert ordered(half, "ewald").composition.reduced_formula == "TiO2"
    nearly = rocksalt({"Mg": 0.999})
    assert ordered(nearly, "ewald").composition.reduced_formula == "MgO"


def test_ases_reader_of_disordered_files(predictor: Predictor, tmp_path: Path) -> None:
    alloy = rocksalt({"Li": 0.5, "Fe": 0.5})
    CifWriter(alloy).write_file(tmp_path / "alloy.cif")
    atoms = read(tmp_path / "alloy.cif")
    with pytest.raises(StructureError, match="disordered"):
        predict_structure(atoms, predictor)
    found = predict_structure(atoms, predictor, order="ewald")
    assert found == pytest.approx(predict_structure(alloy, predictor, order="ewald"), abs=1e-4)


def test_what_cannot_be_ordered(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    small = rocksalt({"Li": 0.5, "Fe": 0.5}).get_primitive_structure()
    with pytest.raises(StructureError, match=r"1 x \(Li 0.5, Fe 0.5\); make a supercell of 2"):
        ordered(small, "ewald")
    metal = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(3.7), [{"Cu": 0.5, "Au": 0.5}], [[0] * 3]
    )
    with pytest.raises(StructureError, match="no oxidation states can be guessed for CuAu"):
        ordered(metal, "ewald")
    with pytest.raises(StructureError, match=r"Mg and Zn share sites .* charge \(\+2\)"):
        ordered(rocksalt({"Mg": 0.5, "Zn": 0.5}), "ewald")
    with pytest.raises(StructureError, match=r"in 6.01e\+08 ways.* \(limit 200,000\)"):
        ordered(rocksalt({"Li": 0.5, "Fe": 0.5}) * (2, 2, 2), "ewald")
    monkeypatch.setattr(ordering, "MAXIMUM_SITES", 4)
    bad, good = rocksalt({"Li": 0.5, "Fe": 0.5}), rocksalt("Mg")
    results = predict([bad, good], predictor, order="ewald")
    assert "8 sites are too many to be ordered here (limit 4)" in results[0].error
    assert not results[1].error
