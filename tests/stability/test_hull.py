from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PDPlotter, PhaseDiagram
from pymatgen.core import Composition

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.stability import Hull, Phase
from recinet_ase.stability.composition import amounts_of, parse_formula, reduced_formula, system_of
from recinet_ase.stability.phases import describe
from recinet_ase.stability.references import SHIPPED, references_card, references_for

KNOWN = [
    Phase.of("Mg", 0.0, "a"),
    Phase.of("O2", 0.0, "b"),
    Phase.of("Ti", 0.0, "c"),
    Phase.of("MgO", -3.0, "d"),
    Phase.of("TiO2", -3.2, "e"),
    Phase.of("TiO2", -3.1, "anatase, say"),
    Phase.of("TiO", -2.0, "above"),
    Phase.of("MgTi", 0.2, "f"),
]


def test_a_hull_by_hand() -> None:
    hull = Hull(KNOWN, "PBE", "mine")
    assert [p.id for p in hull.phases("Ti-O-Mg")] == ["b", "a", "c", "d", "e"]
    # MgTiO3 = MgO + TiO2: 2 of 5 and 3 of 5 atoms, one formula unit each.
    assert hull.energy("MgTiO3") == pytest.approx((2 * -3.0 + 3 * -3.2) / 5, abs=1e-12)
    assert hull.distance("MgTiO3", -3.2) == pytest.approx(-0.08, abs=1e-12)
    found = hull.decomposition({"Mg": 2, "Ti": 2, "O": 6})
    assert describe(found) == "0.50 MgO [d] + 0.50 TiO2 [e]"
    assert [c.atoms for c in found] == pytest.approx([0.4, 0.6])
    assert describe(hull.decomposition("TiO2")) == "1.00 TiO2 [e]"
    assert hull.distance("TiO2", -3.1) == pytest.approx(0.1)
    assert describe(hull.decomposition("TiO")) == "0.50 Ti [c] + 0.50 TiO2 [e]"
    assert hull.distance(bulk("MgO", "rocksalt", 4.2), -3.0) == 0.0


def test_what_lacks_is_named_and_counts_as_zero() -> None:
    hull = Hull(KNOWN)
    assert hull.missing("MgTiO3") == []  # Mg-Ti is no pair of which much must be known
    assert hull.missing("CsPbI3") == ["no elemental Cs or Pb or I", "no binary Cs-Pb or Cs-I"]
    assert hull.energy("CsI") == 0.0
    assert describe(hull.decomposition("CsI")) == "0.50 Cs + 0.50 I"
    assert Hull(KNOWN, pairs=[frozenset(("Cs", "I"))]).missing("CsI") == ["no elemental Cs or I"]


def test_further_phases() -> None:
    hull = Hull(KNOWN, "PBE")
    more = hull.with_phases([Phase.of("MgTiO3", -3.3, "new")])
    assert describe(more.decomposition("MgTiO3")) == "1.00 MgTiO3 [new]"
    assert hull.energy("MgTiO3") > more.energy("MgTiO3")
    assert more.functional == "PBE"


@st.composite
def phase_lists(draw: st.DrawFn) -> list[Phase]:
    elements = draw(st.sampled_from([("Li", "O"), ("Li", "Fe", "O"), ("Li", "Fe", "P", "O")]))
    phases = [Phase.of(e, draw(st.floats(-0.1, 0.1))) for e in elements]
    for _ in range(draw(st.integers(1, 25))):
        counts = {e: draw(st.integers(0, 4)) for e in elements}
        if sum(counts.values()):
            phases.append(Phase.of(counts, draw(st.floats(-3, 1)), "x"))
    return phases


@settings(max_examples=40, deadline=None)
@given(phase_lists(), st.data())
def test_random_hulls_equal_those_of_pymatgen(phases: list[Phase], data: st.DataObject) -> None:
    hull = Hull(phases)
    entries = [PDEntry(Composition(p.amounts), p.energy * p.atoms) for p in phases]
    theirs = PhaseDiagram(entries)
    elements = sorted({e for p in phases for e in p.amounts})
    counts = {e: data.draw(st.integers(0, 7)) for e in elements}
    if not sum(counts.values()):
        counts[elements[0]] = 1
    composition = Composition(counts)
    assert hull.energy(composition) == pytest.approx(
        theirs.get_hull_energy_per_atom(composition), abs=1e-8
    )
    for phase in phases:
        above = hull.distance(phase.amounts, phase.energy)
        assert above == pytest.approx(
            theirs.get_e_above_hull(entries[phases.index(phase)]), abs=1e-8
        )


def _random_compositions(hull: Hull, count: int, seed: int) -> list[dict[str, int]]:
    rng = np.random.default_rng(seed)
    elements = [p.formula for p in hull if len(p.amounts) == 1]
    elements = sorted(e.rstrip("0123456789") for e in elements)
    found = []
    for i in range(count):
        chosen = rng.choice(elements, 1 + i % 6, replace=False)
        found.append({str(e): int(n) for e, n in zip(chosen, rng.integers(1, 9, 6), strict=False)})
    return found


def _compare(name: str, count: int) -> None:
    hull = Hull.load(name)
    compositions = _random_compositions(hull, count, 7)
    energies, mixtures = hull.energies(compositions), hull.decompositions(compositions)
    for counts, energy, mixture in zip(compositions, energies, mixtures, strict=True):
        theirs = hull.phase_diagram(counts)
        target = Composition(counts)
        own = PDEntry(target, (energy + 0.123) * target.num_atoms)
        assert theirs.get_e_above_hull(own, allow_negative=True) == pytest.approx(0.123, abs=1e-8)
        expected = {e.name: x for e, x in theirs.get_decomposition(target).items() if x > 1e-8}
        found = {c.phase.id or c.phase.formula: c.atoms for c in mixture if c.atoms > 1e-8}
        assert found == pytest.approx(expected, abs=1e-7), counts


def test_the_shipped_hulls_equal_those_of_pymatgen() -> None:
    _compare("jarvis", 60)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jarvis", "mp"])
def test_a_thousand_compositions_equal_pymatgens(name: str) -> None:
    _compare(name, 1000)


def test_to_pymatgen_and_back() -> None:
    hull = Hull.load("jarvis")
    diagram = hull.phase_diagram("Mg-Ti-O")
    assert {e.name for e in diagram.stable_entries} == {p.id for p in hull.phases("Mg-Ti-O")}
    assert PDPlotter(diagram, backend="matplotlib").get_plot() is not None
    again = Hull.from_pymatgen(diagram, "OptB88vdW")
    for formula in ("MgTiO3", "Mg2TiO4", "TiO", "Mg"):
        assert again.energy(formula) == pytest.approx(hull.energy(formula), abs=1e-9)
        assert describe(again.decomposition(formula)) == describe(hull.decomposition(formula))
    lacking = Hull.from_pymatgen(hull.phase_diagram("Cs-Pb-I"))
    assert lacking.missing("Cs") == hull.missing("Cs") == ["no elemental Cs"]
    with pytest.raises(ReciNetError, match=r"entry 0 \(MgO\): no entry of elemental"):
        Hull.from_pymatgen([PDEntry(Composition("MgO"), -6.0)])


def test_the_shipped_references() -> None:
    for name, functional in SHIPPED.items():
        hull, card = Hull.load(name), references_card(name)
        assert hull.functional == card["functional"] == functional
        assert references_for(functional) == name
        assert len(hull) == card["corners"] and card["source"] and card["licence"]
        assert hull.missing("BaHfO3") == [] and hull.missing("CsPbI3") != []
        # What is known lies on its own hull.
        chosen = list(hull)[::400]
        depth = hull.energies([p.amounts for p in chosen]) - [p.energy for p in chosen]
        assert np.abs(depth).max() < 1e-6
    assert references_for("LDA") is None
    with pytest.raises(UnknownNameError, match="'jarvis'"):
        Hull.load("jarvs")


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("BaTiO3", {"Ba": 1, "Ti": 1, "O": 3}),
        ("Ca3(PO4)2", {"Ca": 3, "P": 2, "O": 8}),
        ("Li0.5 CoO2", {"Li": 0.5, "Co": 1, "O": 2}),
        ("Al2(Si2O5(OH)2)2", {"Al": 2, "Si": 4, "O": 14, "H": 4}),
    ],
)
def test_formulas(text: str, amounts: dict[str, float]) -> None:
    assert parse_formula(text) == amounts
    assert amounts_of(Composition(text)) == pytest.approx(amounts)


@pytest.mark.parametrize("text", ["", "Xx2", "MgO)", "(MgO", "mgo", "2", "Mg-O", "nan"])
def test_what_is_no_formula(text: str) -> None:
    with pytest.raises(ReciNetError, match="is no chemical formula"):
        parse_formula(text)


def test_names() -> None:
    assert reduced_formula({"O": 6, "Ba": 2, "Ti": 2}) == "BaTiO3"
    assert reduced_formula({"Li": 0.5, "Co": 1, "O": 2}) == "Co1Li0.5O2"
    assert system_of("Li-Fe-O") == ("Li", "O", "Fe") == system_of(["Fe", "O", "Li"])
    with pytest.raises(ReciNetError, match="is no chemical system"):
        system_of("Li-Fx")
    for bad in (3, {"Mg": -1}, {}, {"Xx": 1}):
        with pytest.raises(ReciNetError, match="composition"):
            amounts_of(bad)
