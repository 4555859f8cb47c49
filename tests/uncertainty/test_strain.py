"""Crystals that are not at rest: the estimate of their strain, their flags and intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from support import random_model, validation_sample

from recinet_ase import Predictor, load_model
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.pretrained import available_models
from recinet_ase.uncertainty.calibration import placed
from recinet_ase.uncertainty.copies import (
    LARGEST_STRAIN,
    observe_copies,
    rattled,
    strained,
)
from recinet_ase.uncertainty.observe import observe

LARGE = ("jarvis-eform", "jarvis-mbj")


def test_copies_are_what_they_say(crystals: dict[str, Atoms]) -> None:
    model = random_model()
    ids, found = observe(model, crystals.items())
    copies = observe_copies(model, crystals, ids, found, "strained", most=20)
    assert len(copies) == 20 and len(set(copies.origin.tolist())) == 20
    size = copies.strain.abs()
    assert float(size.min()) > 0 and LARGEST_STRAIN / 2 < float(size.max()) <= LARGEST_STRAIN
    assert torch.equal(copies.found.composition, found.composition[copies.origin])
    moved = observe_copies(model, crystals, ids, found, "rattled")
    assert len(moved) == len(ids)
    np.testing.assert_allclose(moved.strain, 0, atol=1e-9)
    changed = (moved.found.geometry != found.geometry[moved.origin]).any(1)
    several = torch.tensor([len(crystals[ids[i]]) > 1 for i in moved.origin.tolist()])
    assert changed[several].all(), "one atom a cell cannot move against itself"
    again = observe_copies(model, crystals, ids, found, "strained", most=20)
    assert torch.equal(again.found.latent, copies.found.latent), "the same seed"


def test_strained_and_rattled(crystals: dict[str, Atoms]) -> None:
    crystal = to_crystal(crystals["NaCl"])
    assert strained(crystal, 0.1).volume == pytest.approx(crystal.volume * np.exp(0.1))
    moves = rattled(crystal, 0.1, np.random.default_rng(0)).frac_coords - crystal.frac_coords
    moves -= np.round(moves)
    assert 0.02 < np.sqrt(((moves @ crystal.lattice) ** 2).mean()) < 0.3


@pytest.mark.parametrize("name", LARGE)
def test_strain_is_told(name: str) -> None:
    """Its sign, and a flag with the direction and the advice."""
    model = load_model(name)
    calibration = model.calibration
    assert calibration is not None
    relaxed = dict(enumerate(map(to_crystal, validation_sample(name)[0][:60])))
    told, flags = {}, {}
    predictor = Predictor(name, device="cpu")
    for strain in (-0.1, 0.0, 0.1):
        changed = {i: strained(c, strain).to_ase() for i, c in relaxed.items()}
        _, found = observe(model, [(str(i), atoms) for i, atoms in changed.items()])
        told[strain] = placed(found, calibration.reference, calibration.strain).strain
        results = predictor.predict_many(changed.values())
        flags[strain] = [" ".join(r.warnings) for r in results]
    assert (told[0.1] > told[0.0]).double().mean() > 0.9
    assert (told[-0.1] < told[0.0]).double().mean() > 0.9
    assert told[0.0].abs().median() < 0.02 and told[0.1].median() > 0.05
    assert np.mean(["relax it first" in text for text in flags[0.0]]) < 0.15
    assert np.mean(["larger than at rest" in text for text in flags[0.1]]) > 0.5
    assert np.mean(["smaller than at rest" in text for text in flags[-0.1]]) > 0.5


@pytest.mark.parametrize("name", available_models())
def test_stored_figures_of_changed_copies(name: str) -> None:
    """Cross-fitted, pooled over all copies that no limit tells from relaxed crystals."""
    calibration = load_model(name).calibration
    assert calibration is not None
    for figures in calibration.figures["properties"].values():
        groups = figures["changed"].values()
        assert sum(g["crystals"] for g in groups) >= figures["crystals"] / 4
        kept = np.array([g["crystals"] * (1 - g["flagged"]) for g in groups])
        inside = np.array([g["coverage_unflagged"] for g in groups])
        slack = 2.6 * np.sqrt(0.12 / kept.sum())
        assert (kept @ inside) / kept.sum() >= 0.87 - slack
