"""Labels of JARVIS' functional properties, and learning a logarithm."""

from __future__ import annotations

import csv
import json
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from click.testing import CliRunner, Result
from support import random_model, write_jarvis_folder

from recinet_ase import Predictor, ReciNetError
from recinet_ase.cli.train import train
from recinet_ase.data.catalogue import open_dataset
from recinet_ase.data.extraction import FUNCTIONAL_TASKS, Extraction
from recinet_ase.evaluation.metrics import log10_error
from recinet_ase.models.property_model import PropertyModel, as_learnt
from recinet_ase.pretrained import model_card
from recinet_ase.properties import PROPERTIES
from recinet_ase.training.recipes import load_recipe, recipe_names

needs_data = pytest.mark.skipif(
    "RECINET_DATA_DIR" not in os.environ, reason="needs the downloads (RECINET_DATA_DIR)"
)


def record(elements: str = "Ga Ga As As", **values: object) -> dict[str, object]:
    return {"atoms": {"elements": elements.split()}, **values}


@pytest.mark.parametrize(
    ("rule", "values", "label"),
    [
        (Extraction(("x", "y")), {"x": 1.0, "y": 3.0}, 2.0),
        (Extraction(("x", "y")), {"x": 1.0, "y": "na"}, None),
        (Extraction(("x",), high=2), {"x": 3.0}, None),
        (Extraction(("x",), low=0), {"x": -1.0}, None),
        (Extraction(("x",), per="cell"), {"x": 6.0}, 1.5),
        (Extraction(("x",), per="formula"), {"x": 6.0}, 3.0),
        (Extraction(("x",)), {"x": 0.0}, 0.0),
        (Extraction(("x",), zero=False), {"x": 0.0}, None),
        (Extraction(("x",)), {}, None),
    ],
)
def test_extraction(rule: Extraction, values: dict[str, object], label: float | None) -> None:
    assert rule.label(record(**values)) == label


def test_every_functional_property_is_described_and_answered() -> None:
    recipe = load_recipe("jarvis/functional")
    assert set(recipe["properties"]) == set(FUNCTIONAL_TASKS)
    for name in FUNCTIONAL_TASKS:
        info = PROPERTIES[name]
        assert info.symbol and info.description and info.default_model == "jarvis-functional"
    assert model_card("jarvis-functional")["properties"] == list(recipe["properties"])
    assert {"mp/eform", "mp/gap", "mp/bulk", "mp/shear"} <= set(recipe_names())


@pytest.fixture
def folder(crystals: dict[str, Atoms], tmp_path: Path) -> Path:
    """The example crystals with two functional properties in their records."""
    atoms_list = list(crystals.values())
    write_jarvis_folder(tmp_path, atoms_list, "dft_3d_magmom_oszicar")
    write_jarvis_folder(tmp_path, atoms_list, "dft_3d_mepsx", offset=5)
    path = tmp_path / "jarvis" / "jdft_3d-8-18-2021.json.zip"
    with zipfile.ZipFile(path) as archive:
        records = json.loads(archive.read(path.stem))
    for i, row in enumerate(records):
        row["magmom_oszicar"] = 0.1 * (i % 7)
        row |= {"mepsx": 2.0 + i, "mepsy": 4.0 + i, "mepsz": "na" if i == 3 else 6.0 + i}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(path.stem, json.dumps(records))
    return tmp_path


def run(folder: Path, data: Path, *arguments: object) -> Result:
    common = ["--data-dir", str(data), "--cache-dir", str(data / "cache"), "-o", str(folder)]
    quick = ["--size", "tiny", "--batch-size", "8", "--epochs", "4"]
    return CliRunner().invoke(train, [*quick, *common, *map(str, arguments)])


def test_labels_come_from_the_records_and_sides_from_the_split_file(
    folder: Path, crystals: dict[str, Atoms]
) -> None:
    dataset = open_dataset("jarvis", folder)
    moment = dataset.split(dataset.info("magnetic_moment"))
    first = next(iter(crystals.values()))
    assert moment.train["JVASP-0"] == 0 and len(moment.test) == 3
    assert moment.train["JVASP-8"] == pytest.approx(0.1 / len(list(crystals.values())[8]))
    assert len(first) > 0
    eps = dataset.split(dataset.info("mepsx"))
    assert eps.train["JVASP-7"] == pytest.approx(11.0)
    everywhere = {*eps.train, *eps.val, *eps.test}
    assert len(everywhere) == 49 or "JVASP-3" in eps.test, "no label without all components"
    (folder / "jarvis" / "splits" / "dft_3d_mepsx.json.zip").unlink()
    with pytest.raises(ReciNetError, match=r"mepsx.json.zip is neither .* --split-by random"):
        dataset.split(dataset.info("dielectric"))


def test_a_network_of_two_with_a_card_that_lists_both(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    result = run(out, folder, "--props", "magnetic_moment,dielectric", "--log-targets", "mepsx")
    assert result.exit_code == 0, result.output
    assert "dielectric validation MAE" in result.output
    card = (out / "README.md").read_text()
    assert "| `magnetic_moment` | muB/atom | OptB88vdW |" in card
    assert "| `dielectric` | 1 | TB-mBJ |" in card
    config = PropertyModel.load(out).config
    assert config.logarithmic == ("dielectric",) and config.properties[0] == "magnetic_moment"


def test_logarithms_are_learnt_and_answered_in_units(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "log"
    result = run(out, folder, "--props", "dielectric", "--log-targets", "dielectric")
    assert result.exit_code == 0, result.output
    model = PropertyModel.load(out)
    assert model.config.mean[0] == pytest.approx(math.log10(20), abs=0.4)
    with (out / "metrics.csv").open() as handle:
        last = list(csv.DictReader(handle))[-1]
    assert float(last["val_mae"]) < 2 < model.config.training["validation_mae"]
    assert Predictor(out, device="cpu").predict(_crystal())["dielectric"] > 1
    refused = run(
        tmp_path / "zero", folder, "--props", "magnetic_moment", "--log-targets", "magnetic_moment"
    )
    assert refused.exit_code == 2 and "have no logarithm" in refused.stderr
    other = run(tmp_path / "other", folder, "--props", "dielectric", "--log-targets", "slme")
    assert other.exit_code == 2 and "the logarithm of slme" in other.stderr


def _crystal() -> Atoms:
    from ase.build import bulk

    return bulk("MgO", "rocksalt", a=4.21)


def test_a_logarithmic_model_survives_its_file(tmp_path: Path) -> None:
    from dataclasses import replace

    plain = random_model(properties=("bulk_modulus",))
    config = replace(plain.config, mean=(1.5,), std=(0.1,), logarithmic=("bulk_modulus",))
    model = PropertyModel(config)
    model.network.load_state_dict(plain.network.state_dict())
    model.eval().save(tmp_path / "log", half=False)
    again = PropertyModel.load(tmp_path / "log")
    assert again.config.logarithmic == ("bulk_modulus",) and again.fingerprint == model.fingerprint
    values = torch.tensor([[10.0], [0.0], [-3.0]])
    learnt = as_learnt(values, torch.tensor([True]))
    assert learnt[0] == 1 and torch.isnan(learnt[1:]).all()
    assert as_learnt(values, torch.tensor([False])).tolist() == values.tolist()


def test_the_error_of_a_logarithm() -> None:
    assert log10_error([10, 100, -1], [100, 100, 5]) == (0.5, 2)
    error, n = log10_error([-1.0], [2.0])
    assert math.isnan(error) and n == 0


def test_ids_can_be_left_out_of_training(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text("JVASP-0\nJVASP-1\n")
    result = run(tmp_path / "less", folder, "--props", "magnetic_moment", "--leave-out", listed)
    assert result.exit_code == 0, result.output
    assert PropertyModel.load(tmp_path / "less").config.training["n_train"] == 33
    missing = run(tmp_path / "x", folder, "--props", "mepsx", "--leave-out", tmp_path / "none")
    assert missing.exit_code == 2 and "no list of ids" in missing.stderr


@needs_data
def test_ranges_of_the_published_labels() -> None:
    """Units against the data: Dulong and Petit bound the heat capacity, iron has 2.2 muB."""
    dataset = open_dataset("jarvis")
    heat = np.array(list(dataset.labels(dataset.info("heat_capacity")).values()))
    assert heat.min() > 0 and heat.max() < 24.95 and np.median(heat) > 20
    moment = dataset.labels(dataset.info("magnetic_moment"))
    assert moment["JVASP-14619"] == pytest.approx(2.172)
    efficiency = dataset.labels(dataset.info("slme"))
    assert max(efficiency.values()) <= 34 and efficiency["JVASP-1174"] == pytest.approx(33.73)
    masses = dataset.labels(dataset.info("electron_mass"))
    assert min(masses.values()) > 0 and len(masses) == 3222
    for name in FUNCTIONAL_TASKS:
        split = dataset.split(dataset.info(name))
        assert split.train and split.val and not split.held_out & set(split.train)
