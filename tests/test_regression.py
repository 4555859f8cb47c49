"""Every shipped model on 200 of its validation crystals: the errors it was shipped with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import FIXTURES, validation_sample

from recinet_ase import Predictor
from recinet_ase.pretrained import available_models, model_card

RECORDED = json.loads((FIXTURES / "recorded_errors.json").read_text())


def test_the_fixture_covers_what_is_shipped() -> None:
    """After a model is added or replaced: python tools/make_fixture.py --data-dir DIR."""
    assert sorted(RECORDED) == available_models()
    assert (FIXTURES / "validation.json.gz").stat().st_size < 400_000


@pytest.mark.parametrize("name", available_models())
def test_validation_error(name: str) -> None:
    card = model_card(name)
    structures, labels = validation_sample(name)
    results = Predictor(name, device="cpu").predict_many(structures)
    answered = [(r, y) for r, y in zip(results, labels, strict=True) if not r.error]
    assert len(answered) == RECORDED[name]["crystals"] >= 0.98 * len(labels)
    mae = np.mean([abs(r.values[card["properties"][0]] - y) for r, y in answered])
    assert mae == pytest.approx(RECORDED[name]["mae"], rel=0.02)
    low, high = RECORDED[name]["bootstrap_99"]
    assert low < card["training"]["validation_mae"] < high, "card and sample disagree"
