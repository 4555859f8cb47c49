"""The benchmark scripts run from end to end, and measure what they say."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase import Atoms
from support import ROOT, full_graphs, write_jarvis_folder

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.nn.fused import EdgeIndex
from recinet_ase.nn.local import LocalBlock

BENCHMARKS = ROOT / "benchmarks"


def run(script: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def full_batch(crystals: dict[str, Atoms]) -> CrystalBatch:
    return full_graphs(list(crystals.values())[:6])


def local_block(width: int = 32) -> LocalBlock:
    """A block whose norms are not at their initial values."""
    torch.manual_seed(0)
    block = LocalBlock(width, width, "batch")
    for norm in (block.gate_norm, block.node_norm):
        for x in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            x.data.add_(0.3 * torch.rand_like(x))
    return block


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_the_naive_block_is_the_same_function(
    full_batch: CrystalBatch, monkeypatch: pytest.MonkeyPatch, training: bool, fast: bool
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "training"))
    from naive import NaiveLocalBlock

    block = local_block().train(training)
    naive = NaiveLocalBlock(block.width).train(training)
    naive.copy_weights(block)
    h = torch.randn(len(full_batch.z), block.width)
    v = torch.randn(len(full_batch.centre), block.width)
    weight = torch.ones(len(full_batch.centre))
    edges = EdgeIndex.build(full_batch, weight) if fast else None
    ours, _ = block(h, v, full_batch, weight, edges)
    theirs = naive(h, torch.stack((full_batch.centre, full_batch.neighbour)), v)
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.slow
def test_training_benchmark_without_rivals(tmp_path: Path, crystals: dict[str, Atoms]) -> None:
    write_jarvis_folder(tmp_path, list(crystals.values()), "dft_3d_formation_energy_peratom")
    out = run(
        "training/steps.py",
        *("--data-dir", str(tmp_path), "--count", "8", "--batch-size", "4", "--rounds", "1"),
        *("--seconds", "0.01", "--peak-size", "64", "--only", "paper size, bfloat16;all angles"),
        # An interpreter without site-packages has none of the rivals.
        *("--alignn-python", str(bare_python(tmp_path))),
    )
    assert "ALIGNN, all angles: not installed (pip install" in out
    assert "of peak" in out and "2.46 M" in out


def bare_python(folder: Path) -> Path:
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return script


@pytest.mark.slow
def test_what_a_gpu_has_to_show(tmp_path: Path) -> None:
    found = tmp_path / "gpu.json"
    table = run(
        "gpu.py", "--device", "cpu", "--seconds", "400", "--parts", "acef", "--out", str(found)
    )
    parts = json.loads(found.read_text())["parts"]
    assert list(parts) == ["a", "c", "e", "f"]
    for name, part in parts.items():
        assert not {"failed", "stopped"} & {*part}, parts
        assert f"| {name} | " in table
    assert parts["c"]["64 small"]["host_us_crystal"]["load"] > 0
    assert parts["e"]["out of memory"]["said"] == "100 answers, errors: none"
    assert parts["e"]["device assert"]["said"].startswith("DeviceLostError: cuda has failed")
    assert parts["f"]["small float32 64"]["first_loss"] > 0


@pytest.mark.slow
def test_cost_curve(tmp_path: Path) -> None:
    prefix = tmp_path / "curve"
    out = run(
        "training/cost_curve.py",
        *("-o", str(prefix), "--size", "tiny", "--seconds", "0.01"),
        *("--atoms", "2", "40", "--batches", "1"),
    )
    assert "a cell of 40 atoms trains" in out
    with prefix.with_suffix(".csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 2 * 4 and all(float(row["train_ms"]) > 0 for row in rows)
    assert prefix.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"


def test_comparators(
    jarvis_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two networks, one of them on full graphs; the tables print the paper's figures beside."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "accuracy"))
    import ablation
    import comparators

    small = {"size": "tiny", "epochs": 1, "batch_size": 8, "precision": "float32"}
    monkeypatch.setattr(ablation, "COMMON", {**ablation.COMMON, **small})
    options = [
        *(str(tmp_path / "runs"), "--data-dir", str(jarvis_folder), "--tasks", "mbj"),
        *("--cache-dir", str(jarvis_folder / "cache"), "--seeds", "0", "--timed", "3"),
        *("--variants", "Ewald message passing,base"),
    ]

    def tables(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["comparators.py", *options, *more])
        comparators.main()
        return capsys.readouterr().out

    first = tables()
    assert "Table 12" in first and "(0.26) |" in first and "| paper, A100: PotNet |" in first
    monkeypatch.setattr("recinet_ase.training.run.train", None)
    again = tables("--tables-only")
    assert again.split("Table 5")[0] in first


def test_the_ablation_study_runs_and_goes_on(
    jarvis_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two variants, two seeds; a second call reads the finished runs instead of training."""
    monkeypatch.syspath_prepend(str(BENCHMARKS / "accuracy"))
    import ablation

    from recinet_ase.training.devices import Resources

    small = {"size": "tiny", "epochs": 1, "batch_size": 8, "precision": "float32"}
    monkeypatch.setattr(ablation, "COMMON", {**ablation.COMMON, **small})
    resources = Resources(jarvis_folder, jarvis_folder / "cache")

    def table() -> str:
        results = [
            ablation.run_one(tmp_path, "mbj", variant, seed, resources)
            for seed in (0, 1)
            for variant in ("base", "no reciprocal block")
        ]
        return ablation.write_tables(ablation.summarise(results), tmp_path)

    first = table()
    assert "| mbj | no reciprocal block |" in first and (tmp_path / "ablation.png").exists()
    monkeypatch.setattr("recinet_ase.training.run.train", None)
    assert table() == first


def test_several_properties_and_each_alone_learn_from_the_same_crystals(
    crystals: dict[str, Atoms],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS / "accuracy"))
    import multitask

    folder = tmp_path / "data"
    for offset, task in enumerate(("formation_energy_peratom", "mbj_bandgap")):
        write_jarvis_folder(folder, list(crystals.values()), f"dft_3d_{task}", offset=5 * offset)

    group = replace(
        multitask.GROUPS["jarvis"],
        properties={"formation_energy": (1e3, "meV/atom"), "bandgap": (1.0, "eV")},
        table=("14", slice(0, 2)),
        limit=16,
        epochs=1,
        references=(),
    )
    monkeypatch.setitem(multitask.GROUPS, "two", group)
    whole = multitask.settings
    small = {"size": "tiny", "batch_size": 8, "precision": "float32"}
    monkeypatch.setattr(multitask, "settings", lambda *args: replace(whole(*args), **small))
    options = [
        *(str(tmp_path / "runs"), "--data-dir", str(folder), "--groups", "two"),
        *("--cache-dir", str(folder / "cache"), "--seeds", "0"),
    ]

    def tables(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["multitask.py", *options, *more])
        multitask.main()
        return capsys.readouterr().out

    first = tables()
    assert "| one network for each |" in first and "| paper (test): ReciNet-LS |" in first
    trained = {
        path.parent.name: json.loads(path.read_text())["training"]
        for path in (tmp_path / "runs").glob("*/config.json")
    }
    assert len(trained) == 4
    assert len({found["train_ids_sha256"] for found in trained.values()}) == 1
    assert {found["n_train"] for found in trained.values()} == {16}
    monkeypatch.setattr("recinet_ase.training.run.train", None)
    assert tables("--tables-only") in first
