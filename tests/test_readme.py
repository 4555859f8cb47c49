"""The README's statements: its figures are true, its models exist, and their physics is sane.

Its blocks of code are run by test_docs.
"""

from __future__ import annotations

import pytest
from ase import Atoms
from ase.build import bulk
from support import ROOT

from recinet_ase import Predictor, ReciNetCalculator
from recinet_ase.pretrained import available_models

README = (ROOT / "README.md").read_text(encoding="utf-8")
MODELS = (ROOT / "docs" / "reference" / "models.md").read_text(encoding="utf-8")


def test_the_table_of_models_is_that_of_the_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import model_table

    rows = model_table.rows()
    assert len(rows) >= len(available_models())
    assert [row for row in rows if row not in MODELS] == []
    assert not [row for row in rows if "not measured" in row]


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    assert len(README.splitlines()) <= 150
    first, second = README.split("```bash\n")[1:]
    assert first.startswith("python3 -m venv .venv && ") and "recinet-screen examples/" in first
    assert ".[test]" in second and ".venv/bin/pytest" in second.split("```")[0]


def test_the_example_calculations_of_the_readme_are_true() -> None:
    salt = bulk("MgO", "rocksalt", a=4.21)
    calc = ReciNetCalculator(["jarvis-mbj", "jarvis-eform"], device="cpu")
    for name in ("bandgap", "bandgap_high", "formation_energy"):
        assert f"{calc.get_property(name, salt):.2f} eV" in README


@pytest.fixture(scope="module")
def predictions(crystals: dict[str, Atoms]) -> dict[str, dict[str, float]]:
    predictor = Predictor(["jarvis-mbj", "jarvis-eform", "jarvis-ehull"], device="cpu")
    results = predictor.predict_many(crystals.values())
    assert not [r.error for r in results if r.error]
    return {name: r.values for name, r in zip(crystals, results, strict=True)}


def test_metals_have_no_gap_and_salts_a_wide_one(predictions: dict[str, dict[str, float]]) -> None:
    for metal in ("Cu2", "Al", "Fe", "Na", "AlNi3", "LaNi5", "TiC"):
        assert predictions[metal]["bandgap"] < 0.2, metal
    for salt in ("NaCl", "MgO", "CaF2", "Al4O6"):
        assert predictions[salt]["bandgap"] > 5, salt
    for semiconductor in ("Si2", "GaAs", "InP", "Mo2S4"):
        assert 0.3 < predictions[semiconductor]["bandgap"] < 3, semiconductor


def test_formation_energies_have_the_right_size(predictions: dict[str, dict[str, float]]) -> None:
    for element in ("Cu2", "Al", "Fe", "Si2", "Mg"):
        assert abs(predictions[element]["formation_energy"]) < 0.15, element
    known = {"NaCl": -1.94, "MgO": -3.00, "GaAs": -0.33, "PbTe": -0.42}  # OptB88vdW, eV/atom
    for salt, value in known.items():
        assert predictions[salt]["formation_energy"] == pytest.approx(value, abs=0.15), salt
