"""Runs beyond one property in one process: several, own data, recipes, frozen parts, DDP."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import click
import pytest
import torch
from ase import Atoms
from ase.db import connect
from ase.io import write
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from support import write_jarvis_folder

from recinet_ase import Predictor, ReciNetError, load_model
from recinet_ase.cli.train import train
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.forces.settings import ForceTrainingConfig, learns_forces
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.recipes import RECIPES, load_recipe, recipe_names

QUICK = ["--size", "tiny", "--batch-size", "8", "--validate-every", "2"]
COMMAND = [sys.executable, "-m", "recinet_ase.cli.train"]


def run(folder: Path, data: Path, *arguments: object) -> Result:
    common = ["--data-dir", str(data), "--cache-dir", str(data / "cache"), "-o", str(folder)]
    return CliRunner().invoke(train, [*QUICK, *common, *map(str, arguments)])


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def two_tasks(tmp_path_factory: pytest.TempPathFactory, crystals: dict[str, Atoms]) -> Path:
    """Two properties on the same crystals, whose splits differ by five crystals."""
    root = tmp_path_factory.mktemp("two")
    atoms = list(crystals.values())
    write_jarvis_folder(root, atoms, "dft_3d_mbj_bandgap")
    write_jarvis_folder(root, atoms, "dft_3d_optb88vdw_bandgap", offset=5)
    return root


@pytest.fixture(scope="module")
def both(two_tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "both"
    result = run(folder, two_tasks, "--props", "bandgap,bandgap_opt", "--epochs", 4)
    assert result.exit_code == 0, result.output
    assert "bandgap_opt validation MAE" in result.stdout
    return folder


def test_several_properties_in_one_run(both: Path, crystals: dict[str, Atoms]) -> None:
    last = metrics(both)[-1]
    assert float(last["val_mae_bandgap"]) > 0 and float(last["val_mae_bandgap_opt"]) > 0
    training = load_model(both).config.training
    assert training["clean_for"] == ["bandgap", "bandgap_opt"]
    assert training["n_train"] < 35, "held-out crystals of either are in neither"
    assert (both / "parity_bandgap.png").exists() and (both / "learning_curve.png").exists()
    results = Predictor(both, device="cpu").predict_many(crystals.values())
    assert {tuple(r.values) for r in results if not r.error} == {("bandgap", "bandgap_opt")}


def test_one_of_several_can_be_tuned_on(both: Path, two_tasks: Path, tmp_path: Path) -> None:
    """The output of the same property goes on; a start of another dataset's split does not."""
    start = load_model(both).network.state_dict()
    arguments = ("--init", both, "--freeze", "encoder", "--epochs", 1, "--lr", 1e-9)
    result = run(tmp_path / "opt", two_tasks, "--props", "bandgap_opt", *arguments)
    assert result.exit_code == 0, result.output
    tuned = load_model(tmp_path / "opt").network.state_dict()
    torch.testing.assert_close(
        tuned["head.3.weight"][0], start["head.3.weight"][1], atol=1e-6, rtol=0
    )
    result = run(
        tmp_path / "x", two_tasks, "--props", "bandgap", "--init", both, "--split-by", "random"
    )
    assert result.exit_code == 2, result.output


def test_each_output_of_a_composition_branch_goes_on(two_tasks: Path, tmp_path: Path) -> None:
    file = tmp_path / "branch.toml"
    file.write_text("[network]\ncomposition = true\n")
    shared = ("--recipe", file, "--epochs", 1)
    run(tmp_path / "two", two_tasks, "--props", "bandgap,bandgap_opt", *shared)
    arguments = ("--props", "bandgap_opt", "--init", tmp_path / "two", "--lr", 1e-9)
    result = run(tmp_path / "one", two_tasks, *shared, *arguments)
    assert result.exit_code == 0, result.output
    two, one = (load_model(tmp_path / n).network.composition for n in ("two", "one"))
    assert two is not None and one is not None
    torch.testing.assert_close(one.scale[:, 0], two.scale[:, 1], atol=1e-6, rtol=0)
    torch.testing.assert_close(one.formula[-1].bias[0], two.formula[-1].bias[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("part", ["embedding", "blocks:1", "encoder"])
def test_frozen_parts_stay(part: str, both: Path, two_tasks: Path, tmp_path: Path) -> None:
    arguments = ("--props", "bandgap", "--init", both, "--freeze", part, "--epochs", 2)
    result = run(tmp_path / "run", two_tasks, *arguments)
    assert result.exit_code == 0, result.output
    before, after = (load_file(f / "model.safetensors") for f in (both, tmp_path / "run"))
    frozen = {
        "embedding": ("embed_atom.", "embed_edge."),
        "blocks:1": ("embed_atom.", "embed_edge.", "local_blocks.0.", "reciprocal_blocks.0."),
        "encoder": ("embed_atom.", "embed_edge.", "local_blocks.", "reciprocal_blocks."),
    }[part]
    for key, value in before.items():
        if key.startswith(frozen):
            torch.testing.assert_close(after[key], value, msg=key)
    moved = [k for k in before if not k.startswith(frozen) and before[k].shape == after[k].shape]
    assert any(not torch.equal(before[k], after[k]) for k in moved)


def test_wrong_settings(both: Path, two_tasks: Path, tmp_path: Path) -> None:
    cases = [
        (("--init", both, "--props", "bandgap", "--freeze", "blocks:9"), "N up to 2"),
        (("--props", "bandgap", "--freeze", "encoder"), "--freeze encoder would keep random"),
        (("--props", "bandgap", "--split-by", "halves"), "unknown split 'halves'"),
        (("--recipe", "jarvis/mjb"), "unknown recipe 'jarvis/mjb'; did you mean 'jarvis/mbj'"),
        (("--recipe", "mine.toml"), "no such recipe"),
        (("--props", "bandgap", "--init", "runs/nothing"), "no such model folder: runs/nothing"),
        (("--props", "bandgap", "--devices", "two"), "must be a number or 'auto'"),
        (("--props", "bandgap", "--unit", "meV"), "in eV, not 'meV'"),
        (("--dataset", "jarvs"), "did you mean 'jarvis'"),
        (("--dataset", "./jarvs"), "no such dataset, file or folder: ./jarvs"),
    ]  # fmt: skip
    for arguments, message in cases:
        result = run(tmp_path / "run", two_tasks, *arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert message in result.stderr, result.stderr
    assert not (tmp_path / "run").exists()


def test_training_on_a_folder_of_cifs(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    """The README's three lines: a folder with id_prop.csv, a property of one's own."""
    folder = tmp_path / "my_cifs"
    folder.mkdir()
    rows = []
    for name, atoms in crystals.items():
        atoms.write(folder / f"{name}.cif")
        rows.append(f"{name},{atoms.get_volume() / len(atoms):.4f}\n")
    (folder / "broken.cif").write_text("data_nothing\n")
    (folder / "id_prop.csv").write_text("".join(rows) + "broken,1.0\n")
    own = ("--dataset", folder, "--props", "volume_per_atom", "--unit", "A^3")
    result = run(tmp_path / "run", tmp_path, *own, "--epochs", 3)
    assert result.exit_code == 0, result.output
    first, second = result.stderr.splitlines()[:2]
    assert first == "my_cifs: labels are 'value', taken as volume_per_atom in A^3"
    assert second == (f"converting 51 structures to graphs (once; kept in {tmp_path / 'cache'})"), (
        "told where stderr is no terminal"
    )
    with (tmp_path / "run" / "rejected.csv").open() as handle:
        left = {row["id"]: row["reason"] for row in csv.DictReader(handle)}
    foreign = [key for key, why in left.items() if "an element that no training crystal has" in why]
    assert sorted(left) == sorted(["broken", *foreign])
    assert f"{len(foreign)} of 5 validation crystals are not judged" in result.stderr
    judged = Predictor(tmp_path / "run", device="cpu").predict_many(
        crystals[key] for key in foreign
    )
    assert all("was not trained on" in r.error for r in judged)
    results = Predictor(tmp_path / "run", device="cpu").predict_many(crystals.values())
    assert {tuple(r.values) for r in results if not r.error} == {("volume_per_atom",)}
    result = run(tmp_path / "strict", tmp_path, *own, "--max-bad", 0.01)
    assert result.exit_code == 2 and "1 of 51 crystals cannot be used" in result.stderr
    assert not (tmp_path / "strict").exists()


def test_patience_ends_a_run(tmp_path: Path, two_tasks: Path) -> None:
    """Nothing is learnt at this rate, so the second validation is not better than the first."""
    result = run(
        tmp_path / "run", two_tasks, "--props", "bandgap", "--epochs", 40, "--lr", 1e-30,
        "--weight-decay", 0, "--patience", 2, "--norm", "layer",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert len(metrics(tmp_path / "run")) == 6
    assert load_model(tmp_path / "run").config.training["complete"]


def test_the_best_weights_are_kept(tmp_path: Path, two_tasks: Path) -> None:
    run(tmp_path / "run", two_tasks, "--props", "bandgap", "--epochs", 12, "--lr", 0.03)
    errors = [float(row["val_mae"]) for row in metrics(tmp_path / "run") if row["val_mae"]]
    stated = load_model(tmp_path / "run").config.training["validation_mae"]
    assert stated == pytest.approx(min(errors), rel=1e-5)


def test_two_processes_train_like_one(tmp_path: Path, jarvis_folder: Path) -> None:
    curves = []
    for processes in ("1", "2"):
        folder = tmp_path / processes
        command = [
            *COMMAND, "--props", "bandgap", *QUICK, "--epochs", "3", "--devices", processes,
            "--accelerator", "cpu", "--data-dir", str(jarvis_folder),
            "--cache-dir", str(jarvis_folder / "cache"), "-o", str(folder),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        curves.append([float(row["train_mae"]) for row in metrics(folder)])
        assert done.stdout.count("validation MAE") == 1, "one process speaks"
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def test_a_queue_that_ends_the_job_leaves_a_checkpoint(tmp_path: Path, jarvis_folder: Path) -> None:
    folder = tmp_path / "run"
    command = [
        *COMMAND, "--props", "bandgap", *QUICK, "--epochs", "5000",
        "--data-dir", str(jarvis_folder), "--cache-dir", str(jarvis_folder / "cache"),
        "-o", str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (folder / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0 and "continue with --resume" in errors
    assert not load_model(folder).config.training["complete"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_configuration(name: str) -> None:
    settings = load_recipe(name)
    if learns_forces(settings.get("dataset"), settings["properties"]):
        forces = ForceTrainingConfig(**settings)
        assert forces.force_network(ForceNetworkConfig()).width > 0 and forces.recipe == name
        return
    config = TrainingConfig(**settings)
    config.architecture(len(config.properties))
    assert config.recipe == name


def test_recipes_of_the_paper() -> None:
    """Table 7: blocks, epochs and learning rates."""
    for name, blocks, rate in (("eform", 4, 8e-4), ("mbj", 3, 1e-3), ("ehull", 5, 6e-4)):
        config = TrainingConfig(**load_recipe(f"paper/jarvis-{name}"))
        network = config.architecture(1)
        assert (network.width, network.blocks, network.n_basis) == (256, blocks, 256)
        assert (config.epochs, config.learning_rate, config.neighbours) == (500, rate, 16)


def test_a_recipe_of_ones_own(tmp_path: Path, two_tasks: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('properties = ["bandgap"]\nepochs = 3\n[network]\nblocks = 1\n')
    result = run(tmp_path / "run", two_tasks, "--recipe", file, "--epochs", 2)
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "run")
    assert len(metrics(tmp_path / "run")) == 2, "the command line overrules the recipe"
    assert model.config.network.blocks == 1 and model.config.training["recipe"] == str(file)
    file.write_text("epoch = 3\n")
    with pytest.raises(ReciNetError, match="did you mean 'epochs'"):
        load_recipe(str(file))
    for text, message in (
        ("[network]\nchanels = 32\n", "did you mean 'channels'"),
        ('epochs = "ten"\n', "epochs in .* must be of type int, not 'ten'"),
        ("limit = true\n", "limit in .* must be of type int"),
        ('properties = "bandgap"\n', "must be of type list"),
        ("network = 3\n", "must be a table"),
    ):
        file.write_text(text)
        with pytest.raises(ReciNetError, match=message):
            load_recipe(str(file))
    file.write_text("epochs = \n")
    with pytest.raises(ReciNetError, match="not a TOML file"):
        load_recipe(str(file))


def test_defaults_in_the_help_are_those_of_the_configuration() -> None:
    stated = {
        option.name: option.help.split("[default: ")[1].split("]")[0]
        for option in train.params
        if isinstance(option, click.Option) and option.help and "[default: " in option.help
    }
    given = {f.name: f.default for f in fields(TrainingConfig)}
    compared = 0
    for name, text in stated.items():
        if name in given and given[name] not in (None, ()):
            assert str(given[name]) == text, name
            compared += 1
    assert compared >= 10


def test_recipes_are_installed() -> None:
    assert RECIPES.is_dir() and "jarvis/pretrain" in recipe_names()


def partly_labelled(folder: Path, crystals: dict[str, Atoms], every: int) -> Path:
    """A database in which only some rows have a gap."""
    path = folder / "partly.db"
    with connect(path) as database:
        for number, atoms in enumerate(crystals.values()):
            values = {"gap": 0.1 * number} if number % every == 0 else {"other": 1.0}
            database.write(atoms, **values)
    return path


def test_rows_without_a_label_are_no_fault(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    path = partly_labelled(tmp_path, crystals, every=2)
    own = ("--dataset", path, "--props", "bandgap", "--target", "gap", "--epochs", 1)
    result = run(tmp_path / "run", tmp_path, *own)
    assert result.exit_code == 0, result.output
    assert "25 of 50 rows have no label, and are not used" in result.stderr


def test_the_share_of_bad_rows_is_that_of_the_labelled(
    tmp_path: Path, crystals: dict[str, Atoms]
) -> None:
    path = tmp_path / "bad.extxyz"
    frames = []
    for number, atoms in enumerate(crystals.values()):
        frame = atoms.copy()
        frame.info = {"gap": "no number"} if number % 5 == 0 else {"gap": 0.1 * number}
        frames.append(frame)
    write(path, frames)
    own = ("--dataset", path, "--props", "bandgap", "--target", "gap", "--epochs", 1)
    result = run(tmp_path / "no", tmp_path, *own, "--max-bad", 0.19)
    assert result.exit_code == 2
    assert "10 of 50 crystals cannot be used" in result.stderr and "--max-bad" in result.stderr
    assert run(tmp_path / "yes", tmp_path, *own, "--max-bad", 0.2).exit_code == 0


def test_a_start_keeps_its_elements(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    """Fewer crystals than a usual batch, of five elements, from a model that knows 89."""
    folder = tmp_path / "cifs"
    folder.mkdir()
    rows = []
    for number in range(20):
        atoms = crystals["NaCl" if number % 2 else "MgO"].copy()
        atoms.set_cell(atoms.cell * (1 + 0.005 * number), scale_atoms=True)
        atoms.write(folder / f"{number}.cif")
        rows.append(f"{number},{0.2 * number}\n")
    (folder / "id_prop.csv").write_text("".join(rows))
    arguments = ["--dataset", str(folder), "--props", "bandgap", "--init", "jarvis-mbj"]
    arguments += ["--epochs", "1", "--cache-dir", str(tmp_path), "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(train, arguments)
    assert result.exit_code == 0, result.output
    training = load_model(tmp_path / "run").config.training
    assert training["batch_size"] == 4 and 14 in training["elements_of_start"]
    known, borrowed = Predictor(tmp_path / "run", device="cpu").predict_many(
        [crystals["NaCl"], crystals["Si2"]]
    )
    (caution,) = known.warnings
    assert caution.startswith("run: no better than answering the mean") and known.in_domain is None
    assert borrowed.values and borrowed.in_domain is False
    assert borrowed.warnings == ("run: only its start was trained on Si", caution)
    assert "Si" in (tmp_path / "run" / "README.md").read_text()
