"""What cannot be is not said: values and ends of intervals within physical bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ase import Atoms
from support import random_model

from recinet_ase import Predictor, load_model
from recinet_ase.properties import PROPERTIES
from recinet_ase.uncertainty.fit import fit_calibration
from recinet_ase.uncertainty.observe import observe


@pytest.mark.parametrize(
    ("name", "low", "high", "logarithm"),
    [
        ("slme", 0.0, 33.7, False),
        ("dielectric", 1.0, float("inf"), False),
        ("heat_capacity", 0.0, 24.943, False),
        ("bulk_modulus", 1e-9, float("inf"), True),
    ],
)
def test_values_and_intervals(
    name: str, low: float, high: float, logarithm: bool, crystals: dict[str, Atoms], tmp_path: Path
) -> None:
    """A model whose answers lie on both sides of the bounds, with wide intervals."""
    model = random_model(properties=(name,))
    # (A random network's outputs lie below zero.)
    middle, spread = (1.0, 0.3) if logarithm else (high + 15.0 if high < 100 else 30.0, 60.0)
    model.config = replace(
        model.config, mean=(middle,), std=(spread,), logarithmic=(name,) if logarithm else ()
    )
    model.save(tmp_path)
    model = load_model(tmp_path)
    ids, found = observe(model, crystals.items())
    size = 2 * found.output.abs().mean()
    values = found.output.clamp(min=low) + size * torch.linspace(-1, 1, len(ids))[:, None]
    info = PROPERTIES[name]
    fit_calibration(found, found, values, (name,), (info.minimum,), model.fingerprint).save(
        tmp_path
    )
    results = Predictor(tmp_path, device="cpu").predict_many(crystals.values())
    ends = [(*r.intervals[name], r.values[name]) for r in results]
    assert all(low <= lower <= value <= upper <= high for lower, upper, value in ends)
    # Some are at the bound, else nothing was tested.
    if high < 100:
        assert max(value for _, _, value in ends) == pytest.approx(high)
    else:
        assert min(lower for lower, _, _ in ends) == pytest.approx(low, abs=2.0)
