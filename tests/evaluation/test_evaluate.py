"""``recinet-evaluate`` through its command line, and the model card."""

from __future__ import annotations

import csv
import json
import math
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from click.testing import CliRunner, Result
from support import EXAMPLES, ROOT, random_model, write_jarvis_folder

from recinet_ase import Predictor, load_model
from recinet_ase.cli.evaluate import evaluate
from recinet_ase.data.catalogue import open_dataset
from recinet_ase.data.published import JARVIS
from recinet_ase.evaluation import runner
from recinet_ase.evaluation.table import PredictionTable
from recinet_ase.pretrained import available_models
from recinet_ase.properties import PROPERTIES
from recinet_ase.training.card import card_text

PROVENANCE = {
    "dataset": "jarvis",
    "properties": ["bandgap"],
    "clean_for": ["bandgap"],
    "n_train": 35,
    "n_val": 12,
    "train_ids_sha256": "0" * 64,
    "started_from": None,
}


@pytest.fixture(scope="module")
def clean_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that says it was trained on the fixture's training split."""
    folder = tmp_path_factory.mktemp("models") / "clean"
    model = random_model(seed=2)
    model.config = replace(model.config, training=PROVENANCE, functional=("TB-mBJ",))
    model.save(folder, half=False)
    return folder


def run(model: Path | str, data: Path, *arguments: object) -> Result:
    common = [str(model), "--data-dir", str(data), "--device", "cpu"]
    return CliRunner().invoke(evaluate, [*common, *map(str, arguments)])


def test_the_report_of_a_split(clean_model: Path, jarvis_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    result = run(clean_model, jarvis_folder, "-o", out)
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr
    assert {p.name for p in out.iterdir()} == {
        "predictions.csv", "refused.csv", "metrics.json", "report.md", "parity.png",
        "by_element.csv", "by_chemistry.csv", "by_size.csv", "by_value.csv",
    }  # fmt: skip
    # The file holds what the Predictor gives, to the last digit, in the order of the split.
    split, records = (
        JARVIS.split(PROPERTIES["bandgap"], jarvis_folder),
        JARVIS.records(jarvis_folder),
    )
    with (out / "predictions.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [r["id"] for r in rows] == list(split.val)
    assert [float(r["target"]) for r in rows] == list(split.val.values())
    results = Predictor(clean_model, device="cpu").predict_many(records[i] for i in split.val)
    assert [float(r["prediction"]) for r in rows] == [r.values["bandgap"] for r in results]
    errors = np.abs([float(r["prediction"]) - split.val[r["id"]] for r in rows])
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["metrics"]["mae"] == pytest.approx(errors.mean())
    assert figures["metrics"]["n"] == 12 and figures["refused"] == 0
    assert f"{errors.mean():.4g} eV" in result.stdout
    assert f"{errors.mean():.4g} eV" in (out / "report.md").read_text()
    metals = figures["metals"]
    assert metals["threshold"] == 0.1
    assert sum(v for k, v in metals.items() if "_as_" in k) == 12


def test_bad_structures_are_counted_not_fatal(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    atoms = list(crystals.values())[:20]
    atoms[15] = Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.05]], cell=[4, 4, 4], pbc=True)
    write_jarvis_folder(tmp_path, atoms, "dft_3d_mbj_bandgap")
    folder = tmp_path / "model"
    few = tuple(sorted({int(z) for a in atoms[:16] for z in a.numbers}))
    random_model(elements=few).save(folder)
    result = run(folder, tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with (tmp_path / "out" / "refused.csv").open() as handle:
        refused = {r["id"]: r["reason"] for r in csv.DictReader(handle)}
    assert set(refused) == {"JVASP-15", "JVASP-16"}
    assert "0.05" in refused["JVASP-15"]
    assert "not trained on K, Br" in refused["JVASP-16"]
    table = PredictionTable.from_csv(tmp_path / "out" / "predictions.csv")
    assert {table.ids[i] for i in np.flatnonzero(table.refused)} == set(refused)
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (figures["crystals"], figures["refused"], figures["metrics"]["n"]) == (3, 2, 1)
    assert figures["metrics"]["r2"] is None, "undefined for one crystal"
    assert "1 judged, 2 refused" in result.stdout


def test_ids_without_a_structure(clean_model: Path, jarvis_folder: Path) -> None:
    dataset = open_dataset("jarvis", jarvis_folder)
    structures = dict(dataset.structures())
    lost = next(iter(dataset.split(PROPERTIES["bandgap"]).val))
    del structures[lost]
    e = runner.evaluate(Predictor(clean_model, device="cpu"), dataset, structures=structures)
    assert e.absent == {lost: runner.NO_STRUCTURE}
    assert len(e.table) == 11 and e.refused == 0


def test_a_model_against_itself(clean_model: Path, jarvis_folder: Path, tmp_path: Path) -> None:
    run(clean_model, jarvis_folder, "-o", tmp_path / "first")
    result = run(
        clean_model, jarvis_folder, "-o", tmp_path / "second",
        "--compare", clean_model,
        "--compare", tmp_path / "first" / "predictions.csv",
        "--compare", tmp_path / "first",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for c in json.loads((tmp_path / "second" / "metrics.json").read_text())["comparisons"]:
        assert (c["n"], c["difference"], c["difference_low"], c["difference_high"]) == (12, 0, 0, 0)
        assert c["mae"] == c["other_mae"]
    result = run(clean_model, jarvis_folder, "--compare", "jarvis-mbj")
    assert result.exit_code == 0, result.output
    assert "against jarvis-mbj" in result.stdout


def test_withheld_labels(clean_model: Path, jarvis_folder: Path, tmp_path: Path) -> None:
    result = run(
        clean_model, jarvis_folder, "--split", "test", "-o", tmp_path, "--leaderboard",
        "--compare", clean_model,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "labels of the split 'test' of jarvis are withheld" in result.stdout
    assert "MAE" not in result.stdout
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"] is None
    assert "withheld" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "parity.png").exists()
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    assert [r["target"] for r in rows] == ["", "", ""]
    assert all(math.isfinite(float(r["prediction"])) for r in rows)
    name = "AI-SinglePropertyPrediction-mbj_bandgap-dft_3d-test-mae.csv.zip"
    assert PredictionTable.from_csv(tmp_path / name).ids == tuple(r["id"] for r in rows)
    assert "labels of 3 test crystals are withheld" in result.stderr


def test_leaderboard_beside_another_split(
    clean_model: Path, jarvis_folder: Path, tmp_path: Path
) -> None:
    result = run(clean_model, jarvis_folder, "-o", tmp_path, "--leaderboard")
    assert result.exit_code == 0, result.output
    assert len(list(csv.DictReader((tmp_path / "predictions.csv").open()))) == 12
    (archive,) = tmp_path.glob("AI-*.zip")
    assert len(PredictionTable.from_csv(archive)) == 3


def test_known_test_labels_are_used(
    clean_model: Path, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    """Users whose download has every label get their test error."""
    write_jarvis_folder(tmp_path, list(crystals.values()), "dft_3d_mbj_bandgap")
    path = tmp_path / "jarvis" / "jdft_3d-8-18-2021.json.zip"
    with zipfile.ZipFile(path) as archive:
        records = json.loads(archive.read("jdft_3d-8-18-2021.json"))
    for record in records[-2:]:
        record["mbj_bandgap"] = 1.5
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("jdft_3d-8-18-2021.json", json.dumps(records))
    result = run(clean_model, tmp_path, "--split", "test")
    assert result.exit_code == 0, result.output
    assert "2 judged, 1 without a label" in result.stdout and "MAE" in result.stdout


def test_crystals_that_the_model_was_trained_on(
    clean_model: Path, model_folder: Path, jarvis_folder: Path, tmp_path: Path
) -> None:
    result = run(clean_model, jarvis_folder, "--split", "train", "-o", tmp_path)
    assert result.exit_code == 0
    assert "warning: random was trained on these crystals" in result.stderr
    assert "trained on these crystals" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "metrics.json").read_text())["warnings"]
    result = run(clean_model, jarvis_folder, "--compare", model_folder)
    assert "does not say what it was trained on" in result.stderr


def test_another_level_of_theory(clean_model: Path, jarvis_folder: Path) -> None:
    result = run("jarvis-opt", jarvis_folder, "--prop", "gap")
    assert result.exit_code == 0, result.output
    assert "bandgap_opt" in result.stdout
    assert "predicts at the level of OptB88vdW, the labels of jarvis are TB-mBJ" in result.stderr


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory, crystals: dict[str, Atoms]) -> Path:
    """A run on a folder of CIFs with a property of its own, one file of which is missing."""
    root = tmp_path_factory.mktemp("own")
    lines = ["missing,1.0"]
    (root / "cifs").mkdir()
    for name, atoms in list(crystals.items())[:12]:
        atoms.write(root / "cifs" / f"{name}.cif")
        lines.append(f"{name},{atoms.get_volume() / len(atoms):.4f}")
    (root / "cifs" / "id_prop.csv").write_text("\n".join(lines) + "\n")
    model = random_model(seed=4)
    training = {"dataset": "cifs", "properties": ["volume_per_atom"], "started_from": None}
    model.config = replace(
        model.config, properties=("volume_per_atom",), units=("A^3",), training=training
    )
    model.save(root / "run", half=False)
    settings = {
        "dataset": str(root / "cifs"), "unit": "A^3", "target": None, "split": "random",
        "split_seed": 5,
    }  # fmt: skip
    (root / "run" / "training.json").write_text(json.dumps(settings))
    return root / "run"


def test_a_run_is_judged_on_its_own_data(own_run: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(evaluate, [str(own_run), "-o", str(tmp_path / "own")])
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr
    assert "1 rows of cifs cannot be used (the first: missing:" in result.stderr
    figures = json.loads((tmp_path / "own" / "metrics.json").read_text())
    assert (figures["dataset"], figures["split"], figures["unit"]) == ("cifs", "val", "A^3")
    assert figures["split_rule"] == "random (seed 5)" and figures["metrics"]["n"] == 1
    cifs = own_run.parent / "cifs"
    for arguments, message in (
        (["--split", "train"], "was trained on these crystals (cifs)"),
        (["--split-by", "random", "--split-seed", "6"], "trained on another split of cifs"),
        (["--split-by", "fold:2"], "trained on another split of cifs"),
        (["--dataset", str(cifs), "--split", "all"], "trained on most of these crystals"),
    ):
        result = CliRunner().invoke(evaluate, [str(own_run), *arguments])
        assert result.exit_code == 0, result.output
        assert message in result.stderr


def test_a_shipped_model_on_ones_own_data(crystals: dict[str, Atoms], tmp_path: Path) -> None:
    (tmp_path / "id_prop.csv").write_text("NaCl,5.0\nMgO,7.5\n")
    for name in ("NaCl", "MgO"):
        crystals[name].write(tmp_path / f"{name}.cif")
    result = CliRunner().invoke(evaluate, ["jarvis-mbj", "--dataset", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "2 judged" in result.stdout, "all of it by default"
    assert "labels are 'value', taken as bandgap in eV\n" in result.stderr
    assert "whose ids cannot be compared" in result.stderr
    result = CliRunner().invoke(evaluate, ["jarvis-mbj", "--dataset", str(EXAMPLES)])
    assert result.exit_code == 2 and "say --target 'spacegroup'" in result.stderr
    arguments = ["jarvis-mbj", "--dataset", str(tmp_path), "--compare", "jarvis-opt"]
    result = CliRunner().invoke(evaluate, arguments)
    assert result.exit_code == 0, result.output
    assert "on 2 common crystals" in " ".join(result.stdout.split())


def test_data_that_moved(own_run: Path, tmp_path: Path) -> None:
    settings = json.loads((own_run / "training.json").read_text())
    moved = tmp_path / "run"
    moved.mkdir()
    for path in own_run.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    (moved / "training.json").write_text(json.dumps({**settings, "dataset": "/nowhere/cifs"}))
    result = CliRunner().invoke(evaluate, [str(moved)])
    assert result.exit_code == 2
    assert "say with --dataset where it is now" in result.stderr


def test_wrong_calls(
    clean_model: Path, total_energy_folder: Path, jarvis_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "bad.csv").write_text("a,b\n")
    cases = [
        (("jarvis-gap",), "unknown model 'jarvis-gap'"),
        ((clean_model, "--dataset", "jarviss"), "unknown dataset 'jarviss'"),
        ((clean_model, "--split", "vall"), "'vall' is not one of"),
        ((clean_model, "--prop", "gapp"), "unknown property 'gapp'"),
        ((clean_model, "--prop", "ehull"), "does not predict 'ehull'"),
        ((total_energy_folder,), "dft_3d_optb88vdw_total_energy.json.zip"),
        ((clean_model, "--compare", "nothing"), "unknown model 'nothing'"),
        ((clean_model, "--compare", "jarvis-etot"), "jarvis-etot does not predict 'bandgap'"),
        ((clean_model, "--compare", tmp_path / "no.csv"), "cannot read"),
        ((clean_model, "--compare", tmp_path / "bad.csv"), "no prediction file"),
        ((clean_model, "--split-seed", 3), "--split-seed needs a split"),
        ((clean_model, "--target", "gap"), "--target is for your own data"),
        (
            (clean_model, "--leaderboard", "--split-by", "random", "-o", tmp_path / "x"),
            "judges by the published split",
        ),
        ((clean_model, "--leaderboard"), "say into which folder with -o"),
        ((clean_model, "-o", tmp_path / "file"), "is a file"),
        ((clean_model, "--device", "abacus"), "abacus"),
    ]
    for (model, *arguments), message in cases:
        result = run(model, jarvis_folder, *arguments)
        assert result.exit_code == 2, message
        assert message in result.stderr, result.stderr


def test_several_properties_need_a_choice(jarvis_folder: Path, tmp_path: Path) -> None:
    random_model(properties=("bandgap", "ehull")).save(tmp_path / "two")
    result = run(tmp_path / "two", jarvis_folder)
    assert result.exit_code == 2 and "choose one with --prop" in result.stderr
    assert run(tmp_path / "two", jarvis_folder, "--prop", "bandgap").exit_code == 0


def test_the_card_of_a_run(clean_model: Path, jarvis_folder: Path) -> None:
    e = runner.evaluate(Predictor(clean_model, device="cpu"), open_dataset("jarvis", jarvis_folder))
    text = card_text(e.config, e.table, usage="runs/gap", hardware="a laptop", licence="MIT")
    scored = e.table.scored()
    assert f"**{scored.absolute_errors.mean():.3g} eV** (12 crystals)" in text
    for part in (
        'ReciNetCalculator("runs/gap")', "JARVIS-DFT 3D", "dft_3d_mbj_bandgap", "to be measured",
        "a laptop", "| oxides |", "exactly" if "exactly" in text else "| true band gap (eV) |",
        "weights MIT", "Where not to trust it", "0" * 64, "TB-mBJ",
    ):  # fmt: skip
        assert part in text, part
    wrong = {scored.ids[int(scored.absolute_errors.argmax())]}
    text = card_text(e.config, e.table, faults=wrong)
    assert "without 1 labels known to be wrong" in text
    assert "hardware not recorded" in text


def test_a_card_claims_no_more_than_is_known() -> None:
    text = card_text(random_model().config)
    assert "not measured" in text and "not recorded" in text
    assert "contributed a training label" not in text and "sha256" not in text


@pytest.mark.parametrize("name", available_models())
def test_the_shipped_cards_are_the_generator_s(name: str) -> None:
    """Apart from what needs the data, the shipped card is what the package writes today."""
    folder = ROOT / "pretrained" / name
    shipped = (folder / "README.md").read_text(encoding="utf-8")
    made = card_text(load_model(name).config, hardware="one CPU core", licence="MIT")
    for section in ("## Use", "## Training"):
        part = made.split(section)[1].split("\n## ")[0]
        assert part in shipped
