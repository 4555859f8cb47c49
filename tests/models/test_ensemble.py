"""Ensembles: the mean of their members through every door, files, names, refusals."""

from __future__ import annotations

import copy
import csv
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write
from click.testing import CliRunner
from support import random_model

from recinet_ase import (
    Predictor,
    ReciNetCalculator,
    ReciNetError,
    StructureError,
    UnknownNameError,
    annotate,
    available_ensembles,
    available_models,
    load_model,
    predict,
)
from recinet_ase.cli.analyze import analyze
from recinet_ase.cli.main import main
from recinet_ase.cli.screen import screen
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.inference.predict import default_models
from recinet_ase.models.ensemble import EnsembleModel
from recinet_ase.models.ensemble_files import RECORD
from recinet_ase.pretrained import load_network, model_card, model_folder, model_members
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.run import train

SHIPPED = "jarvis-eform:ensemble"


@pytest.fixture(scope="module")
def few(crystals: dict[str, Atoms]) -> list[Atoms]:
    return list(crystals.values())[:12]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A model folder with two further members of other sizes, on one neighbour rule."""
    folder = tmp_path / "mine"
    random_model(seed=0).save(folder, half=False)
    random_model(seed=1, width=48).save(folder / "ensemble" / "member-2", half=False)
    random_model(seed=2, wave_norm="atom").save(folder / "ensemble" / "member-10", half=False)
    return folder


@pytest.mark.parametrize("name", available_ensembles())
def test_a_shipped_ensemble_is_the_mean_of_its_members(name: str, few: list[Atoms]) -> None:
    members = model_members(name)
    base = name.removesuffix(":ensemble")
    assert len(members) >= 2 and members[0] == model_folder(base)
    found = predict(few, name, device="cpu")
    prop = model_card(name)["properties"][0]
    each = np.array([[r.values[prop] for r in predict(few, m, device="cpu")] for m in members])
    assert np.abs([r.values[prop] for r in found] - each.mean(axis=0)).max() < 1e-6
    assert np.allclose([r.spreads[prop] for r in found], each.std(axis=0, ddof=1), atol=1e-6)
    for result in found:
        low, high = result.intervals[prop]
        assert low <= result.values[prop] < high  # a metal's gap lies at the bound


WEAK_MEMBERS = ("jarvis-eform:ensemble", "jarvis-etot:ensemble")


@pytest.mark.parametrize("name", available_ensembles())
def test_a_shipped_ensemble_is_what_its_card_says(name: str) -> None:
    together, first = model_card(name), model_card(name.removesuffix(":ensemble"))
    assert together["name"] == name
    mine, alone = (card["training"]["validation_mae"] for card in (together, first))
    # The energies' further members are weaker networks, of use for the spread alone.
    assert mine < alone * (1.01 if name in WEAK_MEMBERS else 1.0)
    assert set(together["training"]["clean_for"]) <= set(first["training"]["clean_for"])
    assert together["properties"][0] in together["training"]["clean_for"]
    assert len(together["training"]["members"]) == len(model_members(name)) - 1
    assert name in (model_folder(name) / "README.md").read_text()


def test_every_door_gives_the_same_number(few: list[Atoms], tmp_path: Path) -> None:
    by_predictor = Predictor(SHIPPED, device="cpu").predict_many(few)
    calculator = ReciNetCalculator(SHIPPED, device="cpu")
    assert calculator.units["formation_energy_spread"] == "eV/atom"
    write(tmp_path / "few.extxyz", few)
    out = tmp_path / "out.csv"
    arguments = [str(tmp_path / "few.extxyz"), "--model", SHIPPED, "--intervals", "--workers", "0"]
    keep = ["--where", "formation_energy_spread < 1"]
    done = CliRunner().invoke(screen, [*arguments, *keep, "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert f"model {SHIPPED}" in done.stderr
    rows = list(csv.DictReader(out.open()))
    for atoms, result, row in zip(few, by_predictor, rows, strict=True):
        value = result.values["formation_energy"]
        spread = result.spreads["formation_energy"]
        atoms = atoms.copy()
        atoms.calc = calculator
        assert calculator.get_property("eform", atoms) == pytest.approx(value, abs=1e-5)
        assert calculator.get_property("eform_spread", atoms) == pytest.approx(spread, abs=1e-5)
        assert float(row["formation_energy"]) == pytest.approx(value, abs=2e-5)
        assert float(row["formation_energy_spread"]) == pytest.approx(spread, abs=2e-5)
    entries = annotate(atoms)
    assert entries["recinet_formation_energy_spread"] == pytest.approx(spread, abs=1e-5)
    assert entries["recinet_formation_energy_model"] == SHIPPED
    assert annotate(atoms, "jarvis-mbj").keys() & entries.keys() == {"recinet_in_domain"}
    assert "recinet_formation_energy_spread" not in atoms.info
    about = json.loads((tmp_path / "out.csv.meta.json").read_text())
    assert about["models"][0]["name"] == SHIPPED and len(about["models"][0]["members"]) >= 2
    (spread_column,) = (c for c in about["columns"] if c["name"] == "formation_energy_spread")
    assert spread_column == {
        "name": "formation_energy_spread", "unit": "eV/atom", "model": SHIPPED,
    }  # fmt: skip


def test_a_single_model_has_no_spread(few: list[Atoms], tmp_path: Path) -> None:
    assert Predictor("jarvis-mbj", device="cpu").predict_many(few[:2])[0].spreads == {}
    write(tmp_path / "few.extxyz", few[:2])
    arguments = [str(tmp_path / "few.extxyz"), "--model", "jarvis-eform", "--intervals"]
    done = CliRunner().invoke(screen, [*arguments, "--sort", "formation_energy_spread"])
    assert done.exit_code == 2 and "ask an ensemble" in done.stderr


def test_one_s_own_members(own: Path, few: list[Atoms], tmp_path: Path) -> None:
    name = f"{own}:ensemble"
    members = model_members(name)
    assert [m.name for m in members] == ["mine", "member-2", "member-10"]
    model = load_model(name)
    assert isinstance(model, EnsembleModel) and model.config.name == "random:ensemble"
    together = Predictor(name, device="cpu")
    # Three networks, one graph.
    assert len(together.preparation.settings) == 1
    found = [r.values["bandgap"] for r in together.predict_many(few)]
    each = [[r.values["bandgap"] for r in predict(few, m, device="cpu")] for m in members]
    assert found == pytest.approx(np.mean(each, axis=0), abs=1e-5)
    copied = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for one in copied:
        again = [r.values["bandgap"] for r in predict(few, one, device="cpu")]
        assert again == found and one.fingerprint == model.fingerprint
    # A folder of members alone is an ensemble, too.
    for k, path in enumerate(members, 1):
        shutil.copytree(path, tmp_path / "set" / f"member-{k}")
    again = [r.values["bandgap"] for r in predict(few, tmp_path / "set", device="cpu")]
    assert again == found and load_model(tmp_path / "set").fingerprint == model.fingerprint


def test_members_are_bounded_before_they_are_averaged(tmp_path: Path, few: list[Atoms]) -> None:
    """The mean of what users see: a gap of 0 and one of 2 eV, not of -5 and 2."""
    for k, mean in ((1, -5.0), (2, 2.0)):
        model = random_model(seed=k)
        model.config = replace(model.config, mean=(mean,), std=(0.01,))
        model.save(tmp_path / f"member-{k}", half=False)
    result = predict(few[:1], tmp_path, device="cpu")[0]
    assert result.values["bandgap"] == pytest.approx(1.0, abs=0.1)
    assert result.spreads["bandgap"] == pytest.approx(2**0.5, abs=0.1)


def test_elements_are_those_that_all_members_know(tmp_path: Path, few: list[Atoms]) -> None:
    random_model().save(tmp_path / "member-1")
    random_model(elements=(11, 17)).save(tmp_path / "member-2")
    with pytest.raises(StructureError, match="not trained on"):
        Predictor(tmp_path, device="cpu").predict(Atoms("Mg", cell=[3] * 3, pbc=True))


def test_names() -> None:
    assert {f"{n}:ensemble" for n in available_models()} > set(available_ensembles())
    assert not any(":" in name for name in default_models()), "all: one network each"
    listing = CliRunner().invoke(main, ["models"]).output
    assert all(name in listing for name in available_ensembles()) and "mean of 3" in listing
    with pytest.raises(ReciNetError, match="no ensemble jarvis-opt:ensemble.*jarvis-eform:ens"):
        load_model("jarvis-opt:ensemble")
    with pytest.raises(UnknownNameError, match="did you mean 'jarvis-eform:ensemble'"):
        load_model("jarvis-eform:ensembl")
    with pytest.raises(UnknownNameError, match="unknown model 'jarvis-gap'"):
        load_model("jarvis-gap:ensemble")
    both = Predictor(["jarvis-eform", SHIPPED], device="cpu").properties
    assert set(both) == {"formation_energy[jarvis-eform]", f"formation_energy[{SHIPPED}]"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"properties": ("ehull",), "units": ("eV/atom",)}, "different properties"),
        ({"graph": GraphSettings(neighbours=12)}, "different neighbour rules"),
        ({"functional": ("PBE",)}, "different levels of theory"),
    ],
)
def test_members_must_match(own: Path, change: dict[str, object], message: str) -> None:
    odd = random_model(seed=3)
    odd.config = replace(odd.config, **change)
    odd.save(own / "ensemble" / "member-3")
    with pytest.raises(ReciNetError, match=f"{message}.*member-3"):
        load_model(f"{own}:ensemble")
    with pytest.raises(ReciNetError, match="cannot be a member"):
        EnsembleModel(random_model().config, [random_model(), odd])


def test_damage_and_figures_of_other_members(own: Path) -> None:
    name = f"{own}:ensemble"
    shutil.copy(model_folder(SHIPPED) / RECORD, own / "ensemble" / RECORD)
    with pytest.raises(ReciNetError, match="figures of other members"):
        load_model(name)
    (own / "ensemble" / RECORD).write_text("{}")
    with pytest.raises(ReciNetError, match="no record of an ensemble"):
        load_model(name)
    (own / "ensemble" / RECORD).unlink()
    for file in ("calibration.json", "calibration.safetensors"):
        shutil.copy(model_folder(SHIPPED) / file, own / "ensemble" / file)
    with pytest.raises(ReciNetError, match="made for other weights"):
        load_model(name)
    assert load_model(name, calibrated=False).calibration is None
    weights = own / "ensemble" / "member-2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\1")
    with pytest.raises(ReciNetError, match="member-2.*damaged"):
        load_model(name, calibrated=False)
    with pytest.raises(ReciNetError, match="has 1 members"):
        EnsembleModel(random_model().config, [random_model()])


def test_what_needs_one_network_refuses(own: Path, tmp_path: Path) -> None:
    with pytest.raises(ReciNetError, match=f"is an ensemble; use {own}, its first member$"):
        load_network(f"{own}:ensemble")
    done = CliRunner().invoke(analyze, [SHIPPED, "-o", str(tmp_path / "analysis")])
    first = SHIPPED.removesuffix(":ensemble")
    assert done.exit_code == 2 and not (tmp_path / "analysis").exists()
    assert done.stderr == f"error: {SHIPPED} is an ensemble; use {first}, its first member\n"
    config = TrainingConfig(init=SHIPPED)
    with pytest.raises(ReciNetError, match="is an ensemble|RECINET_DATA_DIR|no such"):
        train(config, tmp_path / "run")


def test_double_precision(own: Path, few: list[Atoms]) -> None:
    precise = Predictor(f"{own}:ensemble", device="cpu", dtype="float64")
    single = Predictor(f"{own}:ensemble", device="cpu")
    pairs = zip(precise.predict_many(few), single.predict_many(few), strict=True)
    for one, two in pairs:
        assert one.values["bandgap"] == pytest.approx(two.values["bandgap"], rel=1e-4, abs=1e-4)
    assert precise.models[0].minimum.dtype == torch.float64
