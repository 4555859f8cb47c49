"""Checks on the publishers' own files: slow, and only where the download is at hand.

RECINET_DATA_DIR=... pytest -m slow
"""

from __future__ import annotations

import csv
import os
from functools import cache
from pathlib import Path

import pytest
from ase import Atoms
from ase.db import connect
from click.testing import CliRunner

from recinet_ase import Predictor, StructureError
from recinet_ase.cli.screen import screen
from recinet_ase.data.published import DATASETS, JARVIS
from recinet_ase.data.splits import ids_digest
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import neighbours_of
from recinet_ase.pretrained import available_models, model_card
from recinet_ase.properties import PROPERTIES
from recinet_ase.training.card import stated_error
from recinet_ase.training.labels import listed_ids
from recinet_ase.training.recipes import RECIPES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "RECINET_DATA_DIR" not in os.environ, reason="needs the downloads (RECINET_DATA_DIR)"
    ),
]


@pytest.fixture(scope="module")
def records() -> dict[str, dict]:  # type: ignore[type-arg]
    return JARVIS.records()


@cache
def records_of(dataset: str) -> dict[str, dict]:  # type: ignore[type-arg]
    return DATASETS[dataset].records()


@cache
def usable_in(dataset: str) -> set[str]:
    """Ids whose structures can be made into graphs."""
    good = set()
    for key, record in records_of(dataset).items():
        try:
            neighbours_of(to_crystal(record))
        except StructureError:
            continue
        good.add(key)
    return good


MODELS = [
    name for name in available_models() if model_card(name)["training"]["dataset"] in DATASETS
]


@pytest.mark.parametrize("name", MODELS)
def test_validation_error_on_the_card(name: str) -> None:
    card = model_card(name)
    dataset = DATASETS[card["training"]["dataset"]]
    records = records_of(dataset.name)
    splits = {prop: dataset.split(PROPERTIES[prop]) for prop in card["properties"]}
    ids = [i for i in dict.fromkeys(k for s in splits.values() for k in s.val) if i in records]
    results = dict(
        zip(ids, Predictor(name, device="cpu").predict_many(records[i] for i in ids), strict=True)
    )
    for at, (prop, split) in enumerate(splits.items()):
        errors = [
            abs(results[i].values[prop] - value)
            for i, value in split.val.items()
            if i in results and not results[i].error
        ]
        stated, _ = stated_error(card["training"], card["properties"], at)
        assert sum(errors) / len(errors) == pytest.approx(stated, rel=1e-3)
        assert len(errors) == card["training"]["n_val"] or len(splits) > 1


@pytest.mark.parametrize("name", MODELS)
def test_no_held_out_crystal_was_trained_on(name: str) -> None:
    """The training ids on the card, stage by stage, are disjoint from what it is judged on."""
    card = model_card(name)
    stage = card["training"]
    source = DATASETS[stage["dataset"]]
    judged = set().union(*(source.split(PROPERTIES[p]).held_out for p in card["properties"]))
    usable = usable_in(source.name)
    while stage is not None:
        learnt = [source.split(PROPERTIES[p]) for p in stage["properties"]]
        kept_out = [source.split(PROPERTIES[p]) for p in stage["hold_out"]]
        held = set().union(*(split.held_out for split in learnt + kept_out))
        if listed := stage.get("left_out"):
            (path,) = RECIPES.rglob(listed["file"])
            held |= listed_ids(path)
        exact = (set().union(*(split.train for split in learnt)) & usable) - held
        assert ids_digest(exact) == stage["train_ids_sha256"]
        assert not exact & judged
        stage = stage["started_from"]


def test_five_thousand_crystals_in_one_go(
    tmp_path: Path,
    records: dict[str, dict],  # type: ignore[type-arg]
) -> None:
    with connect(tmp_path / "jarvis.db") as database:
        for key, record in list(records.items())[:5000]:
            try:
                atoms = to_crystal(record).to_ase()
            except StructureError:
                atoms = Atoms()
            database.write(atoms, jid=key)
    out = tmp_path / "out.csv"
    arguments = [str(tmp_path / "jarvis.db"), "--props", "bandgap,ehull", "--id-key", "jid"]
    result = CliRunner().invoke(screen, [*arguments, "-o", str(out), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    with out.open() as handle:
        rows = list(csv.DictReader(handle))
    assert [r["id"] for r in rows] == list(records)[:5000]
    assert sum(bool(r["error"]) for r in rows) < 25
