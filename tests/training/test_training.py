"""Training through its real command line: learning, resuming, time budget, hygiene."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.db import connect
from ase.io import write
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from support import EXAMPLES, random_model, write_jarvis_folder

from recinet_ase import Predictor, ReciNetError, load_model
from recinet_ase.cli.screen import screen
from recinet_ase.cli.train import train
from recinet_ase.data import conversion
from recinet_ase.data.published import JARVIS
from recinet_ase.properties import PROPERTIES
from recinet_ase.training.config import OPTIMIZERS, TrainingConfig
from recinet_ase.training.labels import open_run_dataset, prepare_data
from recinet_ase.training.property_task import PropertyTask, absolute_errors
from recinet_ase.training.provenance import check_start, clean_tasks
from recinet_ase.training.start import build_model
from recinet_ase.training.trainer import Trainer

QUICK = ["--props", "bandgap", "--size", "tiny", "--batch-size", "8", "--validate-every", "5"]


def run(folder: Path, data: Path, *arguments: object) -> Result:
    common = ["--data-dir", str(data), "--cache-dir", str(data / "cache"), "-o", str(folder)]
    settings = [] if "--resume" in arguments else QUICK
    return CliRunner().invoke(train, [*settings, *common, *map(str, arguments)])


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as handle:
        return list(csv.DictReader(handle))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a run's end: averaged weights, last weights, optimiser moments."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    flat = dict(load_file(folder / "model.safetensors"))
    flat |= {f"model.{k}": v for k, v in state["model"].items()}
    for number, optimizer in enumerate(state["optimizers"]):
        for i, moments in optimizer["state"].items():
            flat |= {f"optimizer.{number}.{i}.{k}": v for k, v in moments.items()}
    return flat


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, jarvis_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "volume"
    result = run(folder, jarvis_folder, "--epochs", 60)
    assert result.exit_code == 0, result.output
    assert "validation MAE" in result.stdout and "eV" in result.stdout
    return folder


def test_it_learns(trained: Path) -> None:
    rows = metrics(trained)
    assert len(rows) == 60 and [r["epoch"] for r in rows] == [str(i) for i in range(1, 61)]
    assert float(rows[-1]["train_mae"]) < 0.35 * float(rows[0]["train_mae"])
    card = json.loads((trained / "config.json").read_text())
    figures = card["training"]
    assert figures["validation_mae"] < figures["validation_mad"]
    assert figures["n_train"] == 35 and figures["clean_for"] == ["bandgap"]


def test_a_run_folder_is_a_model(trained: Path) -> None:
    atoms = next(connect(EXAMPLES).select()).toatoms()
    value = Predictor(trained, device="cpu").predict(atoms)["bandgap"]
    result = CliRunner().invoke(screen, [str(EXAMPLES), "--model", str(trained)])
    row = next(csv.DictReader(result.stdout.splitlines()))
    assert float(row["bandgap"]) == pytest.approx(value, abs=1e-5)


def test_validation_error_is_that_of_the_shipped_road(trained: Path, jarvis_folder: Path) -> None:
    """The figure on the card is what the Predictor gives on the validation crystals."""
    split = JARVIS.split(PROPERTIES["bandgap"], jarvis_folder)
    records = JARVIS.records(jarvis_folder)
    results = Predictor(trained, device="cpu").predict_many(records[i] for i in split.val)
    # The tiny training set lacks some elements of the validation set.
    known = [
        abs(r.values["bandgap"] - target)
        for r, target in zip(results, split.val.values(), strict=True)
        if not r.error
    ]
    stated = load_model(trained).config.training["validation_mae"]
    assert len(known) == load_model(trained).config.training["n_val"] < len(results)
    assert sum(known) / len(known) == pytest.approx(stated, rel=0.02, abs=2e-3)


def test_a_run_that_stops_while_converting_is_resumed(
    tmp_path: Path, jarvis_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "CHUNK", 8)
    folder, cache = tmp_path / "run", ("--cache-dir", tmp_path / "cache", "--workers", 1)
    first = run(folder, jarvis_folder, *cache, "--epochs", 2, "--max-minutes", 0)
    assert first.exit_code == 0, first.output
    assert f"8 structures were converted; continue with --resume -o {folder}" in first.output
    assert not (folder / "checkpoint.pt").exists()
    again = run(folder, jarvis_folder, *cache, "--epochs", 2)
    assert again.exit_code == 2 and "already holds a run" in again.output
    last = CliRunner().invoke(
        train, ["--resume", "-o", str(folder), "--data-dir", str(jarvis_folder), *map(str, cache)]
    )
    assert last.exit_code == 0, last.output
    assert load_model(folder).config.training["epochs_done"] == 2


def test_the_log_names_unit_and_best_epoch(tmp_path: Path, jarvis_folder: Path) -> None:
    result = run(tmp_path / "run", jarvis_folder, "--epochs", 5, "--validate-every", 1)
    rows = metrics(tmp_path / "run")
    best = min(rows, key=lambda row: float(row["val_mae"]))
    assert f"best of 5 epochs: {best['epoch']}" in result.output
    early = min(rows[:4], key=lambda row: float(row["val_mae"]))
    assert f" eV, best {float(early['val_mae']):.4g} in epoch {early['epoch']}" in result.output
    assert load_model(tmp_path / "run").config.training["best_epoch"] == int(best["epoch"])


def test_a_model_worse_than_the_mean_says_so(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    """Labels without any meaning: what is learnt by heart makes validation worse."""
    values = np.random.default_rng(0).uniform(0, 5, len(crystals))
    with connect(tmp_path / "noise.db") as database:
        for atoms, value in zip(crystals.values(), values, strict=True):
            database.write(atoms, gap=value)
    folder = tmp_path / "run"
    own = ("--dataset", tmp_path / "noise.db", "--target", "gap", "--cache-dir", tmp_path / "cache")
    result = run(folder, tmp_path, *own, "--epochs", 30, "--validate-every", 30, "--lr", 5e-3)
    assert result.exit_code == 0, result.output
    figures = load_model(folder).config.training
    assert figures["validation_mae"] > figures["validation_mad"]
    assert "caution: this model is no better than answering the mean" in result.output
    assert "no better than answering the mean" in (folder / "README.md").read_text()
    screened = CliRunner().invoke(screen, [str(EXAMPLES), "--model", str(folder)])
    assert "no better than answering the mean" in screened.output


def test_fine_tuning_is_gentle_and_stops() -> None:
    scratch, tuned = TrainingConfig(), TrainingConfig(init="jarvis-mbj")
    assert (scratch.peak_rate, scratch.validations_waited) == (1e-3, 0)
    assert tuned.peak_rate < scratch.peak_rate and tuned.validations_waited > 0
    chosen = TrainingConfig(init="jarvis-mbj", learning_rate=2e-3, patience=0)
    assert (chosen.peak_rate, chosen.validations_waited) == (2e-3, 0)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path, jarvis_folder: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, jarvis_folder, "--epochs", 3, "--seed", seed)
    a, b, c = (weights(tmp_path / n) for n in "abc")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_stopped_and_resumed_equals_undisturbed(
    optimizer: str, tmp_path: Path, jarvis_folder: Path
) -> None:
    asked = ["--epochs", 6, "--optimizer", optimizer]
    run(tmp_path / "whole", jarvis_folder, *asked)
    result = run(tmp_path / "cut", jarvis_folder, *asked, "--max-minutes", 0)
    assert result.exit_code == 0 and "continue with --resume" in result.stderr
    for _ in range(3):
        run(tmp_path / "cut", jarvis_folder, "--resume", "--max-minutes", 0.001)
    result = run(tmp_path / "cut", jarvis_folder, "--resume")
    assert result.exit_code == 0, result.output
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(whole[k], cut[k]) for k in whole)
    strip = [{k: v for k, v in r.items() if k != "seconds"} for r in metrics(tmp_path / "whole")]
    assert strip == [
        {k: v for k, v in r.items() if k != "seconds"} for r in metrics(tmp_path / "cut")
    ]


def test_killed_and_resumed_equals_undisturbed(tmp_path: Path, jarvis_folder: Path) -> None:
    run(tmp_path / "whole", jarvis_folder, "--epochs", 40)
    folder = tmp_path / "killed"
    command = [
        sys.executable, "-m", "recinet_ase.cli.train", *QUICK, "--epochs", "40",
        "--data-dir", str(jarvis_folder), "--cache-dir", str(jarvis_folder / "cache"),
        "-o", str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    checkpoint = folder / "checkpoint.pt"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(metrics(folder)) < 40, "killed in the middle"
    assert run(folder, jarvis_folder, "--resume").exit_code == 0
    whole, killed = weights(tmp_path / "whole"), weights(folder)
    assert all(torch.equal(whole[k], killed[k]) for k in whole)


def test_wrong_calls(trained: Path, tmp_path: Path, jarvis_folder: Path) -> None:
    cases = [
        (run(trained, jarvis_folder), "already holds a run"),
        (run(tmp_path / "none", jarvis_folder, "--resume"), "no training run"),
        (run(tmp_path / "a", tmp_path), "is neither in"),
        (run(tmp_path / "b", jarvis_folder, "--dataset", "oqmd"), "unknown dataset 'oqmd'"),
        (run(tmp_path / "c", jarvis_folder, "--props", "gapp"), "unknown jarvis property 'gapp'"),
        (run(tmp_path / "d", jarvis_folder, "--props", "ehull_label"), "dft_3d_ehull.json.zip"),
        (run(tmp_path / "e", jarvis_folder, "--size", "huge"), "unknown size 'huge'"),
        (run(tmp_path / "f", jarvis_folder, "--batch-size", 512), "do not fill a batch"),
        (run(tmp_path / "g", jarvis_folder, "--init", "nothing"), "unknown model 'nothing'"),
    ]
    for result, message in cases:
        assert result.exit_code == 2, message
        assert message in result.stderr, result.stderr


def test_a_damaged_checkpoint(tmp_path: Path, jarvis_folder: Path) -> None:
    run(tmp_path / "run", jarvis_folder, "--epochs", 2)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"junk")
    result = run(tmp_path / "run", jarvis_folder, "--resume")
    assert result.exit_code == 2 and "cannot resume" in result.stderr


def test_fine_tuning_obeys_the_hygiene_rule(
    trained: Path, tmp_path: Path, jarvis_folder: Path
) -> None:
    result = run(tmp_path / "tuned", jarvis_folder, "--epochs", 2, "--init", trained)
    assert result.exit_code == 0, result.output
    tuned = load_model(tmp_path / "tuned").config.training
    assert tuned["started_from"]["train_ids_sha256"] == tuned["train_ids_sha256"]
    assert tuned["clean_for"] == ["bandgap"]
    # A model that saw other crystals' held-out labels must not be a start.
    card = json.loads((trained / "config.json").read_text())
    card["training"]["clean_for"] = ["formation_energy"]
    leaky = tmp_path / "leaky"
    leaky.mkdir()
    (leaky / "config.json").write_text(json.dumps(card))
    (leaky / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    result = run(tmp_path / "x", jarvis_folder, "--epochs", 2, "--init", leaky)
    assert result.exit_code == 2 and "--hold-out bandgap" in result.stderr
    result = run(tmp_path / "y", jarvis_folder, "--init", trained, "--blocks", 3)
    assert result.exit_code == 2 and "another architecture" in result.stderr
    random_model().save(tmp_path / "silent")
    result = run(tmp_path / "z", jarvis_folder, "--epochs", 2, "--init", tmp_path / "silent")
    assert result.exit_code == 2 and "does not say what it was trained on" in result.stderr


def test_resuming_needs_the_run_folder_alone(
    trained: Path, tmp_path: Path, jarvis_folder: Path
) -> None:
    start = Path(shutil.copytree(trained, tmp_path / "start"))
    run(tmp_path / "tuned", jarvis_folder, "--init", start, "--epochs", 4, "--max-minutes", 0)
    shutil.rmtree(start)
    result = run(tmp_path / "tuned", jarvis_folder, "--resume")
    assert result.exit_code == 0, result.output
    result = run(tmp_path / "tuned", jarvis_folder, "--resume", "--lr", 5)
    assert result.exit_code == 2 and "leave out --lr" in result.stderr


def test_a_time_limit_still_states_the_right_error(tmp_path: Path, jarvis_folder: Path) -> None:
    run(tmp_path / "cut", jarvis_folder, "--epochs", 50, "--max-minutes", 0.005)
    card = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert 0 < card["training"]["validation_mae"] < 100


@pytest.mark.parametrize("steps", [1, 2, 3, 9, 10, 11])
def test_runs_of_a_few_steps(steps: int, tmp_path: Path, jarvis_folder: Path) -> None:
    result = run(tmp_path / "run", jarvis_folder, "--limit", 8, "--epochs", steps)
    assert result.exit_code == 0, result.output
    assert len(metrics(tmp_path / "run")) == steps


def test_a_failed_start_leaves_no_run(tmp_path: Path, jarvis_folder: Path) -> None:
    assert run(tmp_path / "run", jarvis_folder, "--batch-size", 512).exit_code == 2
    assert not (tmp_path / "run").exists()


def test_held_out_crystals_are_not_trained_on(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    """Two tasks on the same crystals whose splits disagree, one of them with a repeated id."""
    atoms = list(crystals.values())
    write_jarvis_folder(tmp_path, atoms, "dft_3d_mbj_bandgap", repeat_in_train=True)
    write_jarvis_folder(tmp_path, atoms, "dft_3d_ehull", offset=20)
    gap, hull = (JARVIS.split(PROPERTIES[p], tmp_path) for p in ("bandgap", "ehull_label"))
    assert set(gap.train) & hull.held_out, "the splits overlap across tasks"
    for hold_out in ((), ("ehull_label",)):  # without and with the rule
        config = TrainingConfig(properties=("bandgap",), size="tiny", hold_out=hold_out)
        dataset, config = open_run_dataset(config, tmp_path)
        data = prepare_data(config, dataset, config.architecture(1), tmp_path / "cache")
        assert not set(data.train_ids) & gap.held_out
        leaked = set(data.train_ids) & hull.held_out
        assert bool(leaked) is (not hold_out)
        clean = {"bandgap", "ehull_label"} if hold_out else {"bandgap"}
        assert clean_tasks(dataset, data.train_ids) == clean
        positions = [data.store.position[i] for i in data.train_ids]
        assert positions == data.train.index.tolist()


def test_listed_ids_are_left_out(trained: Path, tmp_path: Path, jarvis_folder: Path) -> None:
    """The list is checked against the data, and the run goes on without it, elsewhere too."""
    ids = list(JARVIS.split(PROPERTIES["bandgap"], jarvis_folder).train)[:3]
    listing = tmp_path / "lists" / "ids.txt"
    listing.parent.mkdir()
    listing.write_text("nothing\nJVASP-none\n")
    result = run(tmp_path / "none", jarvis_folder, "--leave-out", listing)
    assert result.exit_code == 2 and f"none of the 2 ids in {listing} occurs" in result.stderr
    assert not (tmp_path / "none").exists()

    listing.write_text("\n".join([*ids, "nothing"]))
    cut = ("--leave-out", listing, "--epochs", 6, "--max-minutes", 0)
    result = run(tmp_path / "run", jarvis_folder, *cut)
    assert result.exit_code == 0, result.output
    assert f"left out 3 training crystals listed in {listing}" in result.stderr
    assert "warning: 1 of the 4 ids" in result.stderr and "'nothing'" in result.stderr
    assert load_model(tmp_path / "run").config.training["n_train"] == 35 - 3
    earlier = Path(shutil.copytree(tmp_path / "run", tmp_path / "earlier"))
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert (moved / "left_out_ids.txt").read_text() == listing.read_text()
    # Runs of earlier releases have the list's absolute path, and no copy.
    (earlier / "left_out_ids.txt").unlink()
    settings = json.loads((earlier / "training.json").read_text())
    assert settings["leave_out"] == "left_out_ids.txt"
    (earlier / "training.json").write_text(json.dumps({**settings, "leave_out": str(listing)}))
    result = run(earlier, jarvis_folder, "--resume")
    assert result.exit_code == 0, result.output
    shutil.rmtree(listing.parent)
    result = run(moved, jarvis_folder, "--resume")
    assert result.exit_code == 0, result.output
    one, other = weights(moved), weights(earlier)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_full_graphs_learn_the_same_function(jarvis_folder: Path, tmp_path: Path) -> None:
    for name, extra in (("reduced", ()), ("full", ("--full-graphs",))):
        result = run(tmp_path / name, jarvis_folder, "--epochs", 3, *extra)
        assert result.exit_code == 0, result.output
    reduced, full = (float(metrics(tmp_path / n)[-1]["val_mae"]) for n in ("reduced", "full"))
    assert reduced == pytest.approx(full, rel=0.05)


def test_full_graphs_of_large_cells_from_ase_in_bfloat16(
    tmp_path: Path, crystals: dict[str, Atoms]
) -> None:
    """Coordinates in columns, and cells whose waves are summed one cell at a time."""
    frames = []
    for number in range(24):
        atoms = crystals["Si2"] * (3, 3, 2) if number % 2 else crystals["NaCl"] * (1, 1, 2)
        atoms.rattle(0.02, seed=number)
        atoms.info["gap"] = 0.1 * number
        frames.append(atoms)
    write(tmp_path / "large.extxyz", frames)
    result = CliRunner().invoke(
        train,
        [
            *("--dataset", str(tmp_path / "large.extxyz"), "--props", "bandgap", "--target", "gap"),
            *("--full-graphs", "--precision", "bfloat16", "--size", "tiny", "--epochs", "1"),
            *("--batch-size", "8", "--cache-dir", str(tmp_path), "-o", str(tmp_path / "run")),
        ],
    )
    assert result.exit_code == 0, result.output


def test_bfloat16_and_each_reciprocal_block(tmp_path: Path, jarvis_folder: Path) -> None:
    for mode in ("lattice", "mean", "none"):
        result = run(
            tmp_path / mode, jarvis_folder, "--epochs", 2, "--reciprocal", mode,
            "--precision", "bfloat16",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        assert load_model(tmp_path / mode).config.network.reciprocal == mode
    literal = ("--reciprocal", "literal", "--epochs", 2)
    result = run(tmp_path / "reduced", jarvis_folder, *literal)
    assert result.exit_code == 2 and "--full-graphs" in result.stderr
    assert run(tmp_path / "literal", jarvis_folder, *literal, "--full-graphs").exit_code == 0


def test_fabric_says_nothing_of_the_precision() -> None:
    code = (
        "import logging, lightning_fabric\n"
        "level = logging.getLogger('lightning_fabric').level\n"
        "from recinet_ase.training.devices import make_fabric\n"
        "make_fabric('bfloat16', 'cpu')\n"
        "assert logging.getLogger('lightning_fabric').level == level\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr == "" and found.stdout == ""


def test_a_run_that_diverges_says_so(tmp_path: Path, jarvis_folder: Path) -> None:
    config = TrainingConfig(properties=("bandgap",), size="tiny", batch_size=8)
    dataset, config = open_run_dataset(config, jarvis_folder)
    data = prepare_data(config, dataset, config.architecture(1), jarvis_folder / "cache")
    model = build_model(config, dataset, data, "bad", config.architecture(1))
    with torch.no_grad():
        model.network.head[-1].bias.fill_(float("inf"))
    task = PropertyTask(model, data.store, data.train, data.val, config)
    trainer = Trainer(task, config, tmp_path)
    with pytest.raises(ReciNetError, match="lower the learning rate"):
        trainer.fit()


def test_missing_labels_do_not_count() -> None:
    output = torch.tensor([[1.0, 5.0], [3.0, 0.0]], requires_grad=True)
    target = torch.tensor([[2.0, float("nan")], [1.0, float("nan")]])
    errors = absolute_errors(output, target)
    assert errors.tolist() == [[1.0, 0.0], [2.0, 0.0]]
    errors.sum().backward()
    assert torch.isfinite(output.grad).all()


def test_a_start_that_once_learnt_from_the_same_data_is_refused(jarvis_folder: Path) -> None:
    config = TrainingConfig(properties=("bandgap",))
    dataset, config = open_run_dataset(config, jarvis_folder)
    start = random_model()
    first = {"dataset": "jarvis", "clean_for": [], "started_from": None}
    for earlier in (first, {"dataset": "mlearn", "clean_for": [], "started_from": first}):
        seen = {"dataset": "mp", "clean_for": ["bandgap"], "started_from": earlier}
        start.config = replace(start.config, training=seen)
        with pytest.raises(ReciNetError, match="trained on jarvis before mp"):
            check_start(start, config, dataset)
    start.config = replace(start.config, training={**seen, "started_from": None})
    check_start(start, config, dataset)
