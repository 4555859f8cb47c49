"""`predict`: properties by name, lists that become tables, predictions that say what they are."""

from __future__ import annotations

import math

import pytest
from ase import Atoms
from ase.build import bulk

from recinet_ase import (
    Predictor,
    ReciNetCalculator,
    ReciNetForceCalculator,
    predict,
    predict_structure,
)
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.inference.result import Prediction
from recinet_ase.pretrained import FORCE_MODEL, available_force_models
from recinet_ase.simulation import RelaxationSettings, relax_many


@pytest.fixture(scope="module")
def structures() -> list[Atoms]:
    return [bulk("NaCl", "rocksalt", a=5.64), Atoms("H"), bulk("Si") * (2, 1, 1)]


def test_a_property_chooses_its_model(structures: list[Atoms]) -> None:
    by_name = predict(structures, props="gap, bulk_modulus")
    by_model = predict(structures, ["jarvis-mbj", "jarvis-bulk"])
    assert [r.values for r in by_name] == [r.values for r in by_model]
    assert by_name.units == {"bandgap": "eV", "bulk_modulus": "GPa"} == by_name[0].units
    one = predict_structure(structures[0], props=["bandgap"])
    assert one == pytest.approx({"bandgap": by_name[0].values["bandgap"]}, rel=1e-5)


def test_properties_choose_among_those_of_a_model(structures: list[Atoms]) -> None:
    result = predict(structures[:1], "jarvis-mt", props="ehull,bandgap")[0]
    assert len(result.values) == 2 and "bandgap" in result.values


def test_what_cannot_be_chosen(structures: list[Atoms]) -> None:
    with pytest.raises(UnknownNameError, match="bandgap"):
        predict(structures, props="bandgapp")
    with pytest.raises(ReciNetError, match="predicts"):
        predict(structures, "jarvis-bulk", props="bandgap")
    with pytest.raises(ReciNetError, match="do not give props again"):
        predict(structures, Predictor("jarvis-bulk"), props="bulk_modulus")


def test_a_table_has_a_row_for_each_structure(structures: list[Atoms]) -> None:
    results = predict(structures, "jarvis-eform:ensemble", props="formation_energy")
    frame = results.to_frame()
    assert list(frame.columns) == [
        "formula", "natoms", "formation_energy", "formation_energy_low", "formation_energy_high",
        "formation_energy_spread", "in_domain", "warnings", "error",
    ]  # fmt: skip
    assert list(frame.formula) == ["NaCl", "H2", "Si"]
    assert frame.attrs["units"] == {"formation_energy": "eV/atom"}
    assert math.isnan(frame.formation_energy[1]) and frame.error[1] == results[1].error != ""
    assert (frame.formation_energy_low[[0, 2]] <= frame.formation_energy[[0, 2]]).all()
    assert frame.formation_energy.dtype == float


def test_tables_of_nothing_and_of_errors_alone() -> None:
    assert len(predict([], "jarvis-mbj").to_frame()) == 0
    frame = predict([Atoms("H")], "jarvis-mbj").to_frame()
    assert frame.bandgap.isna().all() and frame.error.all()


def test_what_is_shown(structures: list[Atoms]) -> None:
    predictor = Predictor("jarvis-mbj", device="cpu")
    salt, atom, _ = results = predictor.predict_many(structures)
    low, high = salt.intervals["bandgap"]
    shown = f"<Prediction NaCl: bandgap {salt.values['bandgap']:.4g} [{low:.4g}, {high:.4g}] eV>"
    assert repr(salt) == shown
    assert repr(atom).startswith("<Prediction H2: error: ")
    assert repr(results).count("\n") == 2
    assert "and 5 more" in repr(type(results)([salt] * 15))
    assert repr(Prediction(error="no file")) == ("<Prediction of nothing readable: error: no file>")
    assert repr(predictor) == "<Predictor: bandgap (eV, jarvis-mbj) on cpu>"
    calculator = ReciNetCalculator(predictor)
    assert repr(calculator) == "<ReciNetCalculator: bandgap (eV, jarvis-mbj) on cpu>"


def test_crystals_are_relaxed_before_they_are_judged() -> None:
    at_rest = relax_many([bulk("Si")], ReciNetForceCalculator("mlearn-pes"))[0].atoms
    cells = [
        bulk("Si", a=5.7),
        bulk("NaCl", "rocksalt", a=5.6),
        ReciNetError("no file"),
        bulk("Cu", a=3.3),
    ]
    few = RelaxationSettings(max_steps=6)
    found = predict(cells, props="bandgap", relax="mlearn-pes", relaxation=few)
    expected = predict([at_rest], props="bandgap")[0].values["bandgap"]
    assert found[0].values["bandgap"] == pytest.approx(expected, abs=0.02)
    assert found[0].values != predict(cells[:1], props="bandgap")[0].values
    assert found[0].relaxation is not None and found[0].relaxation.converged
    assert "mlearn-pes was not trained on Na, Cl" in found[1].error and found[1].formula == "NaCl"
    assert found[2].error == "no file" and not found[1].values
    frame = found.to_frame()
    assert list(frame.relaxed) == [True, False, False, found[3].relaxation.converged]
    assert frame.volume_change[0] == pytest.approx(-0.11, abs=0.02)
    assert frame.relax_steps[0] > 1 and math.isnan(frame.relax_steps[1])

    unfinished = predict(
        cells[3:], props="bandgap", relax="mlearn-pes", relaxation=RelaxationSettings(max_steps=1)
    )[0]
    assert unfinished.values and not unfinished.relaxation.converged
    assert any("not relaxed to 0.02 eV/A after 1 step" in text for text in unfinished.warnings)
    assert unfinished.in_domain is False and found[0].in_domain is not False


def test_what_the_force_model_does_not_know_is_outside_the_domain() -> None:
    strange = Atoms("Si", cell=[2.4, 2.4, 2.4], pbc=True)  # simple cubic, under pressure
    kept = RelaxationSettings(cell=False)
    found = predict([strange], props="bandgap", relax="mlearn-pes", relaxation=kept)[0]
    assert found.values and found.in_domain is False
    assert any(text.startswith("relaxation: ") for text in found.warnings)


def test_relaxing_takes_the_force_model_for_every_element() -> None:
    if FORCE_MODEL in available_force_models():
        assert predict([bulk("NaCl", "rocksalt", a=5.9)], relax=True)[0].relaxation.converged
        return
    with pytest.raises(ReciNetError, match=r"mlearn-pes knows Li, Si, Ni.*MODULE:CLASS"):
        predict([bulk("Si")], relax=True)
