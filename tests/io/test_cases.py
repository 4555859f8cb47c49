"""The table of cases: files on which readers go wrong, and what is right (`fixtures/cases`)."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from support import FIXTURES

from recinet_ase import Predictor
from recinet_ase.io import find_sources, read_entries, read_structure
from recinet_ase.io.symmetry.operations import same_atoms

CASES = FIXTURES / "cases"
TABLE = list(csv.DictReader((CASES / "structures.csv").open()))
REASONS = {
    "03_mcif.cif": "magnetic",
    "04_upper_types.cif": "element",
    "04d_upper_nb.cif": "element",
    "09f_noocc_shared.cif": r"^disordered: Na1 and K1 share a position",
    "coord_dot.cif": r"Na1 has coordinates that are not given",
    "b0.pdb": "space group",
    "r0b_shelx_mixed.res": "symmetry operations are no group",
    "l0.dump": "names no elements",
    "mixed.cif": r"^disordered: .* '0.6Mg \+ 0.4Fe'.* mixture",
    "pf_group.cif": r"^disordered: .* group of atoms",
    "p8_lower.vasp": "element",
}
"""What the reason of a refusal says."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("jarvis-mbj", device="cpu", intervals=False)


def read(name: str) -> list[Atoms | Exception]:
    found = [
        entry.atoms for entry in read_entries(find_sources([str(CASES / "structures" / name)]))
    ]
    return found  # type: ignore[return-value]


def counts(formula: str) -> dict[str, int]:
    return {s: int(n or 1) for s, n in re.findall(r"([A-Z][a-z]?)(\d*)", formula)}


def is_formula(text: str) -> bool:
    return bool(re.fullmatch(r"([A-Z][a-z]?\d*)+", text))


def same(first: Atoms, second: Atoms) -> bool:
    """Equal but for where the cell begins."""
    np.testing.assert_allclose(first.cell.cellpar(), second.cell.cellpar(), atol=1e-6)
    parts = ((a.numbers, a.get_scaled_positions()) for a in (first, second))
    return same_atoms(*parts, first.cell.array)


@pytest.mark.parametrize("row", TABLE, ids=[row["file"] for row in TABLE])
def test_every_case_is_right(row: dict[str, str], predictor: Predictor) -> None:
    (found,) = read(row["file"])
    answer, _, other = row["answer"].partition("|")
    if isinstance(found, Exception):
        assert "refuse" in (answer, other), found
        assert re.search(REASONS[row["file"]], str(found))
        return
    assert answer != "refuse"
    (result,) = predictor.predict_many([found])
    assert not result.error and np.isfinite(result.values["bandgap"])
    if answer.startswith("="):
        (twin,) = read(answer[1:])
        assert isinstance(twin, Atoms)
        assert found.symbols.formula.count() == twin.symbols.formula.count()
        (wanted,) = predictor.predict_many([twin])
        assert result.values["bandgap"] == pytest.approx(wanted.values["bandgap"], abs=1e-4)
    elif is_formula(answer):
        assert found.symbols.formula.count() == counts(answer)


def test_words_of_the_table() -> None:
    """What the rows whose answer is neither a formula nor a refusal mean."""
    words = {r["file"]: r["answer"] for r in TABLE if not is_formula(r["answer"].split("|")[0])}
    assert {k for k, v in words.items() if v and not v.startswith("=") and v != "refuse"} == {
        "15_gsas.cif",  # "one row": the block with a crystal alone
        "l1_elem.dump",
        "p13_Dsym.vasp",
    }
    formulas = {"15_gsas.cif": "Na4Cl4", "l1_elem.dump": "Na4Cl4", "p13_Dsym.vasp": "LiH"}
    for name, formula in formulas.items():
        (found,) = read(name)
        assert isinstance(found, Atoms) and found.symbols.formula.count() == counts(formula)


def test_positions_are_those_of_the_crystal() -> None:
    """Formulas alone would not tell a shifted origin."""
    for name, formula, distance in (
        ("07h_si_oc2_both.cif", "Si8", 5.43 * 3**0.5 / 4),
        ("05_textfield.cif", "Si8", 5.43 * 3**0.5 / 4),
        ("01_hall_only.cif", "Na4Cl4", 2.82),
        ("b0.pdb", "Na4Cl4", 2.82),
        ("l1_elem.dump", "Na4Cl4", 2.82),
    ):
        (found,) = read(name)
        assert isinstance(found, Atoms) and found.symbols.formula.count() == counts(formula)
        distances = found.get_all_distances(mic=True) + 9 * np.eye(len(found))
        assert distances.min(axis=1) == pytest.approx(distance, rel=1e-3)
    (pnma,), (pbnm,) = read("08f_pnma_right.cif"), read("08d_pbnm.cif")
    assert isinstance(pnma, Atoms) and isinstance(pbnm, Atoms)
    turned = Atoms(
        pbnm.numbers,
        scaled_positions=pbnm.get_scaled_positions()[:, [1, 2, 0]],
        cell=pbnm.cell.cellpar()[[1, 2, 0, 4, 5, 3]],
        pbc=True,
    )
    assert same(turned, pnma)


def test_a_magnetic_file_in_a_folder(tmp_path: Path) -> None:
    shutil.copy(CASES / "structures" / "03_mcif.mcif", tmp_path)
    shutil.copy(CASES / "structures" / "03_mcif.cif", tmp_path / "a.mmcif")
    first, second = read_entries(find_sources([str(tmp_path)]))
    assert isinstance(first.atoms, Atoms) and first.atoms == second.atoms


def test_one_block_of_several_is_a_structure() -> None:
    atoms = read_structure(CASES / "structures" / "gsas_si.cif")
    assert atoms.get_chemical_formula() == "Si8"
