"""`ehull` by every road: predictor, calculator, annotations, screen, report."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.spacegroup import crystal
from click.testing import CliRunner
from support import random_model

from recinet_ase import Predictor, ReciNetCalculator, annotate, predict, predict_structure
from recinet_ase.cli.evaluate import evaluate
from recinet_ase.cli.screen import screen
from recinet_ase.errors import ReciNetError
from recinet_ase.inference.predict import default_models
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.pretrained import (
    available_ensembles,
    available_models,
    model_card,
    model_folder,
)
from recinet_ase.stability import Hull, Phase
from recinet_ase.stability.phases import describe
from recinet_ase.training.elements import listed_rare

A = 4.17
BAHFO3 = crystal(
    ["Ba", "Hf", "O"], [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221,
    cellpar=[A, A, A, 90, 90, 90],
)  # fmt: skip
CSI = bulk("CsI", "cesiumchloride", a=4.56)
SOME = [BAHFO3, bulk("MgO", "rocksalt", 4.22), bulk("Si"), CSI, bulk("NaCl", "rocksalt", 5.64)]


@pytest.fixture(scope="module")
def structures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("some") / "some.extxyz"
    write(path, SOME)
    return path


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("jarvis-eform", device="cpu", properties=["formation_energy", "ehull"])


def test_stable_is_what_is_stable(predictor: Predictor) -> None:
    """The published label of BaHfO3 gives 1.94 eV/atom."""
    (found,) = predictor.predict_many([BAHFO3])
    assert abs(found.values["ehull"]) < 0.05 and found.in_domain and not found.warnings
    assert describe(found.decomposition) == "1.00 BaHfO3 [JVASP-36951]"
    energy = Hull.load("jarvis").energy("BaHfO3")
    assert found.values["ehull"] == pytest.approx(found.values["formation_energy"] - energy)
    ends = [e - energy for e in found.intervals["formation_energy"]]
    assert found.intervals["ehull"] == pytest.approx(ends)


def test_no_silent_number_where_references_lack(predictor: Predictor) -> None:
    (found,) = predictor.predict_many([CSI])
    assert found.in_domain is False and found.lacks == "no elemental Cs; no binary Cs-I"
    said = " ".join(found.warnings)
    assert "references jarvis lack: no elemental Cs; no binary Cs-I" in said
    assert "its training data have only 16 crystals with Cs" in said


def test_one_number_by_every_road(predictor: Predictor, structures: Path, tmp_path: Path) -> None:
    expected = [r.values["ehull"] for r in predictor.predict_many(SOME)]
    assert [r.values["ehull"] for r in predict(SOME, predictor)] == expected
    assert predict_structure(BAHFO3, predictor)["ehull"] == pytest.approx(expected[0], abs=1e-5)
    alone = Predictor("jarvis-eform", device="cpu", properties="e_above_hull")
    assert [info.name for info in alone.infos] == ["ehull"] == list(alone.properties)
    for result, value in zip(alone.predict_many(SOME), expected, strict=True):
        assert set(result.values) == set(result.intervals) == {"ehull"}
        assert result.values["ehull"] == pytest.approx(value, abs=1e-5)
    atoms = BAHFO3.copy()
    atoms.calc = ReciNetCalculator(predictor)
    for name in ("ehull", "e_above_hull", "energy_above_hull", "hull_distance"):
        assert atoms.calc.get_property(name, atoms) == pytest.approx(expected[0], abs=1e-5)
    assert atoms.calc.units["ehull"] == "eV/atom" and atoms.calc.models["ehull"] == "jarvis-eform"
    low, high = (atoms.calc.get_property(f"ehull_{end}", atoms) for end in ("low", "high"))
    assert low < expected[0] < high
    assert describe(atoms.calc.decomposition) == "1.00 BaHfO3 [JVASP-36951]"
    entries = annotate(atoms)
    assert entries["recinet_ehull_decomposition"] == "1.00 BaHfO3 [JVASP-36951]"
    out = tmp_path / "out.csv"
    for workers in ("0", "1"):
        call(structures, "--props", "bandgap,ehull", "--workers", workers, "-o", str(out))
        rows = table(out)
        assert [float(r["ehull"]) for r in rows] == pytest.approx(expected, abs=2e-5)
        assert [r["ehull_lacks"] for r in rows][3] == "no elemental Cs; no binary Cs-I"
        assert not any(r["error"] for r in rows)


def call(path: Path, *options: str) -> str:
    found = CliRunner().invoke(screen, [str(path), "--device", "cpu", *options])
    assert found.exit_code == 0, found.output
    return found.output


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as handle:
        return list(csv.DictReader(handle))


def test_a_screen_says_it_all(structures: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "o.csv", tmp_path / "o.html"
    said = call(
        structures, "--props", "ehull", "--intervals", "--decomposition", "--where", "ehull < 0.05",
        "--confident", "--sort", "ehull", "-o", str(out), "--report", str(page),
        "--workers", "0",
    )  # fmt: skip
    assert "model jarvis-eform (OptB88vdW), references jarvis (OptB88vdW), 17" in said
    rows = table(out)
    assert rows and all(r["in_domain"] == "true" for r in rows)
    assert all(float(r["ehull_high"]) < 0.05 for r in rows)
    assert {r["formula"] for r in rows} <= {"BaHfO3", "MgO", "Si", "NaCl"}
    assert all(r["decomposition"].startswith("1.00 ") for r in rows)
    html = page.read_text()
    for row in rows:
        phase = row["decomposition"].split("[")[1].rstrip("]")
        assert f">{phase}</a>]" in html
    if any(r["formula"] == "MgO" for r in rows):
        assert 'aria-label="Phase diagram of Mg-O"' in html
    meta = json.loads((tmp_path / "o.csv.meta.json").read_text())
    assert meta["references"]["name"] == "jarvis"


def test_own_references(structures: Path, tmp_path: Path) -> None:
    refs = tmp_path / "refs.csv"
    refs.write_text("formula,formation_energy,id\nMg,0,a\nO,0,b\nMgO,-4,deep\n")
    out = tmp_path / "o.csv"
    call(structures, "--props", "ehull", "--hull", str(refs), "--decomposition", "-o", str(out))
    alone = table(out)
    assert alone[1]["decomposition"] == "1.00 MgO [deep]" and 0.9 < float(alone[1]["ehull"]) < 1.2
    assert "no elemental" in alone[0]["ehull_lacks"]
    arguments = ("--hull", "jarvis", "--hull", str(refs))
    call(structures, "--props", "ehull", *arguments, "--decomposition", "-o", str(out))
    added = table(out)
    assert added[1]["decomposition"] == "1.00 MgO [deep]"
    assert added[0]["decomposition"].startswith("1.00 BaHfO3") and not added[0]["ehull_lacks"]


def test_the_screened_set_as_its_own_hull(tmp_path: Path) -> None:
    path, out = tmp_path / "s.extxyz", tmp_path / "o.csv"
    squeezed = bulk("MgO", "cesiumchloride", a=2.65)
    write(path, [bulk("MgO", "rocksalt", 4.22), squeezed, bulk("Mg")])
    call(
        path, "--props", "formation_energy,ehull", "--hull", "self", "--decomposition",
        "--sort", "-ehull", "-o", str(out),
    )  # fmt: skip
    rows = {row["id"]: row for row in table(out)}
    stable, high, metal = (rows[key] for key in sorted(rows))
    assert float(stable["ehull"]) == pytest.approx(0, abs=1e-6)
    gap = float(high["formation_energy"]) - float(stable["formation_energy"])
    assert float(high["ehull"]) == pytest.approx(gap, abs=1e-6) and gap > 0.1
    assert stable["decomposition"] == high["decomposition"] == f"1.00 MgO [{stable['id']}]"
    assert float(metal["ehull"]) >= 0
    assert table(out)[0]["id"] == high["id"]  # sorted by the new numbers
    assert not stable["ehull_lacks"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--props", "bandgap", "--decomposition"), "add ehull to --props"),
        (("--props", "bandgap", "--hull", "jarvis"), "where formation_energy is predicted"),
        (("--props", "ehull", "--hull", "mp"), "must not be compared"),
        (("--props", "ehull", "--sort", "decomposition"), "ask for --decomposition"),
    ],
)
def test_what_makes_no_sense(options: tuple[str, ...], message: str, structures: Path) -> None:
    found = CliRunner().invoke(screen, [str(structures), "--device", "cpu", *options])
    assert found.exit_code == 2 and message in found.stderr


def of_theory(functional: str) -> PropertyModel:
    model = random_model(properties=("formation_energy",))
    model.config = replace(model.config, functional=(functional,))
    return model


def test_other_models() -> None:
    """A level of theory without references gives no distance, unless some are given."""
    unknown = of_theory("none")
    assert "ehull" not in Predictor(unknown, device="cpu").properties
    with pytest.raises(ReciNetError, match="random predicts formation energies at 'none'"):
        Predictor(unknown, device="cpu", properties=["ehull"])
    mine = Hull([Phase.of("Mg", 0.0), Phase.of("O", 0.0), Phase.of("MgO", -3.0)])
    found = Predictor(unknown, device="cpu", hull=mine).predict(SOME[1])
    assert found["ehull"] == pytest.approx(found["formation_energy"] + 3.0, abs=1e-6)
    assert Predictor(of_theory("PBE"), device="cpu").stability.hull.name == "mp"  # type: ignore[union-attr]
    with pytest.raises(ReciNetError, match="of use where formation_energy is predicted"):
        Predictor(random_model(), device="cpu", hull=mine)
    # A network that learnt distances itself answers for itself.
    direct = random_model(properties=("formation_energy", "ehull"))
    assert Predictor(direct, device="cpu").stability is None


def test_references_of_a_calculator(tmp_path: Path) -> None:
    refs = tmp_path / "refs.json"
    refs.write_text('[{"formula": "MgO", "formation_energy": -4.0, "id": "deep"}]')
    own = Hull.read(refs)
    for hull in (own, refs, ["jarvis", str(refs)]):
        atoms = SOME[1].copy()
        atoms.calc = ReciNetCalculator("jarvis-eform", device="cpu", hull=hull)
        assert 0.9 < atoms.calc.get_property("ehull") < 1.2
        assert describe(atoms.calc.decomposition) == "1.00 MgO [deep]"
    (found,) = predict([SOME[1]], "jarvis-eform", props="ehull", hull=own, device="cpu")
    assert found.values["ehull"] == pytest.approx(atoms.calc.results["ehull"], abs=1e-5)
    with pytest.raises(ReciNetError, match="a Predictor has its hull"):
        ReciNetCalculator(atoms.calc.predictor, hull=own)
    with pytest.raises(ReciNetError, match="give it a Hull"):
        ReciNetCalculator("jarvis-eform", hull="self")


def test_shipped_models() -> None:
    for name, references in (("jarvis-mt", "jarvis"), ("mp-eform", "mp")):
        predictor = Predictor(name, device="cpu")
        assert predictor.stability is not None and predictor.stability.hull.name == references
        assert abs(predictor.predict(BAHFO3)["ehull"]) < 0.08
    assert "jarvis-eform" in default_models()
    label = Predictor("jarvis-ehull", device="cpu")
    assert list(label.properties) == ["ehull_label"]
    assert label.predict(BAHFO3)["ehull_label"] > 1


def test_an_ensemble_spreads() -> None:
    predictor = Predictor("jarvis-eform:ensemble", device="cpu", properties=["ehull"])
    (found,) = predictor.predict_many([SOME[1]])
    assert found.spreads["ehull"] > 0


def test_one_bad_structure_costs_no_other(predictor: Predictor) -> None:
    odd = Atoms("MgO", positions=[[0, 0, 0], [0, 0, 0]], cell=[4, 4, 4], pbc=True)
    first, second = predictor.predict_many([odd, BAHFO3])
    assert first.error and "ehull" not in first.values and "ehull" in second.values


def test_elements_that_a_model_hardly_knows_are_flagged() -> None:
    model = random_model()
    model.config = replace(
        model.config, training={"n_train": 5000, "rare_elements": {"Cs": 7, "I": 9}}
    )
    predictor = Predictor(model, device="cpu")
    rare, usual = predictor.predict_many([CSI, SOME[1]])
    said = "random: its training data have only 9 crystals with I and 7 crystals with Cs"
    assert rare.warnings == (said,) and rare.in_domain is False
    assert usual.warnings == () and usual.in_domain is None
    small = {**model.config.training, "n_train": 500}  # of few crystals all would be flagged
    model.config = replace(model.config, training=small)
    assert Predictor(model, device="cpu").predict_many([CSI])[0].warnings == ()


@pytest.mark.parametrize("name", [*available_models(), *available_ensembles()])
def test_cards_list_the_elements_that_a_model_hardly_knows(name: str) -> None:
    rare = model_card(name)["training"]["rare_elements"]
    folder, _, kind = name.partition(":")
    card = (model_folder(folder) / kind / "README.md").read_text()
    assert listed_rare(rare) in card


def test_an_evaluation_judges_distances(tmp_path: Path) -> None:
    labelled = SOME[1].copy()
    labelled.info["ehull"] = 0.01
    write(tmp_path / "own.extxyz", [labelled, SOME[4]])
    words = ["jarvis-eform", "--dataset", str(tmp_path / "own.extxyz"), "--prop", "ehull"]
    found = CliRunner().invoke(evaluate, [*words, "--device", "cpu"])
    assert found.exit_code == 0, found.output
    assert "jarvis-eform (ehull, OptB88vdW)" in found.output
    refs = tmp_path / "refs.csv"
    refs.write_text("formula,formation_energy\nMg,0\nO,0\nMgO,-30\n")
    words += ["--hull", str(refs), "-o", str(tmp_path / "out"), "--device", "cpu"]
    found = CliRunner().invoke(evaluate, words)
    assert found.exit_code == 0, found.output
    (row,) = [r for r in table(tmp_path / "out" / "predictions.csv") if r["target"] == "0.01"]
    assert float(row["prediction"]) > 20  # far above the hull given
    for hull, prop, message in (
        (str(refs), "formation_energy", "add --props ehull"),
        ("self", "ehull", "of one recinet-screen"),
        ("mp", "ehull", "must not be compared"),
    ):
        words = ["jarvis-eform", "--dataset", str(tmp_path / "own.extxyz"), "--hull", hull]
        found = CliRunner().invoke(evaluate, [*words, "--props", prop, "--device", "cpu"])
        assert found.exit_code == 2 and message in found.stderr
    found = CliRunner().invoke(evaluate, ["jarvis-eform", "--dataset", "jarvis", "--prop", "ehull"])
    assert found.exit_code == 2 and "as ehull_label" in found.stderr
