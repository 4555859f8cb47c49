"""Every shipped model on 200 of its validation crystals: the errors it was shipped with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support import FIXTURES, validation_sample

from recinet_ase import Predictor
from recinet_ase.pretrained import available_ensembles, available_models, model_card

SHIPPED = [*available_models(), *available_ensembles()]
RECORDED = json.loads((FIXTURES / "recorded_errors.json").read_text())


def test_the_fixture_covers_what_is_shipped() -> None:
    """After a model is added or replaced: python tools/make_fixture.py --data-dir DIR."""
    assert sorted(RECORDED) == sorted(SHIPPED)
    assert (FIXTURES / "validation.json.gz").stat().st_size < 400_000


@pytest.mark.parametrize("name", SHIPPED)
def test_validation_error(name: str) -> None:
    card = model_card(name)
    predictor = Predictor(name, device="cpu", intervals=False)
    for prop in card["properties"]:
        structures, labels = validation_sample(name, prop)
        results = predictor.predict_many(structures)
        recorded = RECORDED[name][prop]
        answered = [(r, y) for r, y in zip(results, labels, strict=True) if not r.error]
        assert len(answered) == recorded["crystals"] >= 0.98 * len(labels)
        mae = np.mean([abs(r.values[prop] - y) for r, y in answered])
        assert mae == pytest.approx(recorded["mae"], rel=0.02)
        if len(card["properties"]) == 1:
            low, high = recorded["bootstrap_99"]
            on_card = card["training"]["validation_mae"]
            assert low < on_card < high, "card and sample disagree"
