"""Reduced formulas, wherever one is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest
from ase import Atoms
from ase.formula import Formula
from hypothesis import given
from hypothesis import strategies as st
from pymatgen.core import Composition

from recinet_ase.data.dataset import _reduced_formula
from recinet_ase.data.overlap import composition_key
from recinet_ase.elements import symbols
from recinet_ase.formula import count_elements, formula_of, reduced_counts
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.phonons.structure import formula
from recinet_ase.screening.selection.columns import reduced_formula


def test_every_reduced_formula_is_pymatgen_s(crystals: dict[str, Atoms]) -> None:
    for name, cell in crystals.items():
        atoms = cell.repeat((2, 1, 1))
        unit, _ = Composition(name).get_reduced_composition_and_factor()
        if len(unit) == 1:  # of elements pymatgen keeps molecules such as O2
            unit = Composition({next(iter(unit)): 1})
        expected = {str(element): int(n) for element, n in unit.items()}
        assert reduced_counts(dict(atoms.symbols.formula.count())) == expected
        by_number = sorted((element.Z, int(n)) for element, n in unit.items())
        assert list(composition_key(to_crystal(atoms))) == by_number
        assert _reduced_formula(atoms.numbers.tolist()) == " ".join(
            f"{z}:{n}" for z, n in by_number
        )
        assert reduced_formula(atoms.get_chemical_formula()) == "".join(
            f"{symbol}{n}" for symbol, n in sorted(expected.items())
        )
        assert Composition(formula(atoms)) == unit


NOBLE = {"He", "Ne", "Ar"}  # without an electronegativity: pymatgen's order is by chance


@given(
    st.dictionaries(
        st.sampled_from([symbol for symbol in symbols()[1:95] if symbol not in NOBLE]),
        st.integers(1, 12),
        min_size=1,
        max_size=5,
    )
)
def test_formulas_are_written_as_pymatgen_writes_them(counts: dict[str, int]) -> None:
    atoms = [symbol for symbol, n in counts.items() for _ in range(n)]
    written = formula_of(atoms)
    assert written == Composition(counts).reduced_formula
    if len(counts) > 2:
        assert count_elements(written) == reduced_counts(counts)
    assert count_elements(written).keys() == counts.keys()


@pytest.mark.parametrize(
    ("cell", "formula"),
    [("PbCsI3", "CsPbI3"), ("F3CaRb", "RbCaF3"), ("O6Si3", "SiO2"), ("P4O16Ca6", "Ca3(PO4)2")],
)
def test_formulas_of_cells(cell: str, formula: str) -> None:
    assert formula_of(list(Formula(cell))) == formula
    assert count_elements(formula) == reduced_counts(Formula(cell).count())


@pytest.mark.parametrize("empty", ["", "()"])
def test_no_atoms(empty: str) -> None:
    assert reduced_counts({}) == {} and reduced_formula(empty) == ""


def test_it_needs_nothing_heavy() -> None:
    code = "import sys, recinet_ase.formula; assert not {'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
