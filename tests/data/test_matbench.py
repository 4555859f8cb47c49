"""MatBench: scores, the record's layout, crystals that two datasets share, the runner."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import matbench
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from matbench_record import (
    FoldResult,
    document_hash,
    regression_scores,
    results_document,
    spread,
    write_results,
)
from same_crystals import find_same
from test_datasets import write_matbench

from recinet_ase import ReciNetError
from recinet_ase.data.catalogue import open_dataset
from recinet_ase.models.property_model import PropertyModel


def test_scores_are_matbenchs() -> None:
    scores = regression_scores([1.0, 2.0, 0.0], [2.0, 2.0, 1.0])
    assert scores["mae"] == pytest.approx(2 / 3) and scores["rmse"] == pytest.approx((2 / 3) ** 0.5)
    assert scores["mape"] == pytest.approx(0.5), "labels of zero have no percentage"
    assert scores["max_error"] == 1
    assert spread([1.0, 3.0]) == (2.0, 1.0), "numpy's own deviation, not the sample's"


def test_the_record(tmp_path: Path) -> None:
    folds = [
        FoldResult({f"mb-{k}": 1.0 * k}, {f"mb-{k}": 1.0}, {"hours": 0.1, "list": [1, 2]})
        for k in range(5)
    ]
    document = results_document({"matbench_phonons": folds}, {"algorithm": "ReciNet"})
    write_results(document, tmp_path / "results.json.gz")
    again = json.loads(gzip.decompress((tmp_path / "results.json.gz").read_bytes()))
    assert again == json.loads(json.dumps(document)) and document_hash(again) == again["hash"]
    assert set(again) == {
        "@module", "@class", "version", "tasks", "user_metadata", "benchmark_name",
        "datestamp", "hash",
    }  # fmt: skip
    fold = again["tasks"]["matbench_phonons"]["results"]["fold_4"]
    assert set(fold) == {"data", "parameters", "scores"}
    assert fold["data"] == {"mb-4": 4.0} and fold["scores"]["mae"] == 3.0
    with pytest.raises(ReciNetError, match="withheld"):
        results_document({"matbench_phonons": [FoldResult({"mb-1": 1.0})]}, {})


def test_the_same_crystal_is_found_under_another_description() -> None:
    salt, rutile = bulk("NaCl", "rocksalt", a=5.64), bulk("Si")
    conventional = bulk("NaCl", "rocksalt", a=5.70, cubic=True)
    conventional.rotate(33, "z", rotate_cell=True)
    others = [
        ("same", conventional),
        ("polymorph", bulk("NaCl", "cesiumchloride", a=3.5)),
        ("other", bulk("MgO", "rocksalt", a=4.21)),
        ("unreadable", ReciNetError("broken")),
    ]
    assert find_same({"a": salt, "b": rutile}, others) == {"a": ["same"]}


def test_matminers_own_folder_is_read(
    crystals: dict[str, Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    path = write_matbench(tmp_path / "theirs", crystals, "matbench_mp_gap")
    monkeypatch.setenv("MATMINER_DATA", str(path.parent))
    dataset = open_dataset("matbench_mp_gap", tmp_path / "ours")
    assert dataset.source_files() == [path]


@pytest.mark.slow
def test_the_runner(
    crystals: dict[str, Atoms],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Five folds, two members; then a second call, which reads what is finished."""
    write_matbench(tmp_path, crystals)
    from recinet_ase.training import recipes

    small = {"size": "tiny", "batch_size": 8, "network": ()}
    load = recipes.load_recipe
    monkeypatch.setattr(recipes, "load_recipe", lambda name: {**load(name), **small})
    common = ["--data-dir", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]
    arguments = [str(tmp_path / "out"), "--tasks", "matbench_phonons", "--epochs", "2", *common]

    def call(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["matbench.py", *arguments, *more])
        matbench.main()
        return capsys.readouterr().out

    first = call("--members", "2")
    assert "matbench_phonons-fold4-1 ..." in first and "| matbench_phonons (5 folds) |" in first
    record = json.loads(gzip.decompress((tmp_path / "out" / "results.json.gz").read_bytes()))
    results = record["tasks"]["matbench_phonons"]["results"]
    listed = [key for fold in results.values() for key in fold["data"]]
    assert sorted(listed) == sorted(open_dataset("matbench_phonons", tmp_path).labels(_peak()))
    assert np.isfinite([v for fold in results.values() for v in fold["data"].values()]).all()
    assert "..." not in call("--members", "2"), "finished runs are only read"
    # Each fold chooses by its own validation crystals.
    out = call("--poolings", "mean,peak", "--folds", "1")
    chosen = out.split("matbench_phonons: ")[1].splitlines()[0]
    errors = {
        name: PropertyModel.load(
            tmp_path / "out" / name / "matbench_phonons-fold1-0"
        ).config.training["validation_mae"]
        for name in ("mean", "peak")
    }
    assert chosen == min(errors, key=lambda name: errors[name])
    # Weights that saw the test crystals of other folds are no start.
    with pytest.raises(SystemExit, match="test crystals were seen"):
        call("--init", str(tmp_path / "out" / "matbench_phonons-fold0-0"))


def test_wrong_calls_of_the_runner(
    crystals: dict[str, Atoms], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_matbench(tmp_path, crystals)
    for arguments, message in (
        (["--tasks", "nosuch"], "error: unknown MatBench task 'nosuch'"),
        (["--folds", "0,9"], "error: --folds 9: the folds are 0, 1, 2, 3, 4"),
        (["--folds", "all"], "error: --folds all"),
        (["--poolings", "max"], "error: unknown pooling 'max'"),
        (["--init", "jarvis-mbj"], "--init jarvis-mbj: a run folder is needed here"),
        (["--data-dir", str(tmp_path / "nowhere")], "error: the data folder .* does not exist"),
    ):
        monkeypatch.setattr(
            sys, "argv",
            ["matbench.py", str(tmp_path / "out"), "--tasks", "matbench_phonons",
             "--data-dir", str(tmp_path), *arguments],
        )  # fmt: skip
        with pytest.raises(SystemExit, match=message):
            matbench.main()
    assert not (tmp_path / "out").exists()


def test_one_fold_has_no_spread() -> None:
    folds = [
        FoldResult({"a": 1.0}, {"a": 2.0 + k}, {"hours": 0.1, "validation_mae": [1.0]})
        for k in range(2)
    ]
    assert "(1 fold) | 1 1/cm |" in matbench.table({"matbench_phonons": folds[:1]})
    assert "(2 folds) | 1.5 ± 0.5 1/cm |" in matbench.table({"matbench_phonons": folds})


def _peak() -> object:
    from recinet_ase.properties import PROPERTIES

    return PROPERTIES["phonon_peak"]


@pytest.mark.skipif("RECINET_DATA_DIR" not in os.environ, reason="needs the downloads")
@pytest.mark.parametrize("name", ["matbench_jdft2d", "matbench_phonons"])
def test_every_label_of_the_two_tasks_is_at_hand(name: str) -> None:
    dataset = open_dataset(name)
    labels = dataset.labels(dataset.info(dataset.properties[0]))
    folds = dataset.folds()  # type: ignore[attr-defined]
    assert len(folds) == 5 and set(labels) == {key for fold in folds for key in fold}
