"""Fixtures and the hypothesis profile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.db import connect
from hypothesis import HealthCheck, settings
from support import EXAMPLES, random_model, write_jarvis_folder

# Of the commands that tests start: one thread each, as the tests themselves (`pytest -n`).
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "recinet",
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("recinet")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def crystals() -> dict[str, Atoms]:
    """The 50 example crystals by formula."""
    return {row.formula: row.toatoms() for row in connect(EXAMPLES).select()}


@pytest.fixture(scope="session")
def few(crystals: dict[str, Atoms]) -> list[Atoms]:
    """Eleven frames of three crystals."""
    small = [a for a in crystals.values() if len(a) < 8][:3]
    return [small[i % 3] for i in range(11)]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model (bandgap) with random weights."""
    folder = tmp_path_factory.mktemp("models") / "random-gap"
    random_model().save(folder, half=False)
    return folder


@pytest.fixture(scope="session")
def total_energy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model (total energy) with random weights."""
    folder = tmp_path_factory.mktemp("models") / "random-etot"
    random_model(properties=("total_energy",), seed=1).save(folder, half=False)
    return folder


@pytest.fixture(scope="session")
def jarvis_folder(tmp_path_factory: pytest.TempPathFactory, crystals: dict[str, Atoms]) -> Path:
    """The fifty example crystals as a JARVIS data folder, for the mBJ gap task."""
    root = tmp_path_factory.mktemp("data")
    write_jarvis_folder(root, list(crystals.values()), "dft_3d_mbj_bandgap")
    return root
