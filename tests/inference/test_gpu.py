"""Predictions on a GPU, as far as that can be seen without one."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from ase.build import bulk
from pretended import GPU, PretendedGpu
from support import random_model

from recinet_ase import Predictor
from recinet_ase.inference import predictor as inference
from recinet_ase.inference.result import Prediction


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (130 << 30, 140 << 30))
    plain = inference.choose_device
    monkeypatch.setattr(
        inference, "choose_device", lambda name: GPU if str(name) == "cuda" else plain(name)
    )
    return PretendedGpu()


def rattled(n: int) -> list[Atoms]:
    """Cells of 54 atoms without symmetry, whose waves are summed themselves."""
    salt = bulk("NaCl", "rocksalt", a=5.64).repeat((3, 3, 3))
    cells = [salt.copy() for _ in range(n)]
    for seed, atoms in enumerate(cells):
        atoms.rattle(0.05, seed=seed)
    return cells


def on_gpu(gpu: PretendedGpu, model: object, structures: list[Atoms]) -> list[Prediction]:
    """Predictions there; counted is what comes after the first of them, and graphs."""
    with gpu:
        predictor = Predictor(model, device="cuda")  # type: ignore[arg-type]
        window = predictor.preparation(structures)
        predictor.run(window)
        gpu.reset()
        return predictor.run(window)


def agree(found: list[Prediction], expected: list[Prediction]) -> None:
    for one, two in zip(found, expected, strict=True):
        assert one.error == two.error
        for name, value in two.values.items():
            assert one.values[name] == pytest.approx(value, rel=2e-5, abs=2e-5)
            for mine, other in zip(
                one.intervals.get(name, ()), two.intervals.get(name, ()), strict=True
            ):
                assert mine == pytest.approx(other, rel=1e-4, abs=1e-4)


MODELS = {
    "shipped": "jarvis-eform",
    "experts": "jarvis-mt",
    "attention": {"pooling": "attention", "composition": True},
    "peak": {"pooling": "peak"},
    "edges": {"norm": "layer", "edge_update": True},
}


@pytest.mark.parametrize("name", MODELS)
def test_small_large_and_mixed(name: str, gpu: PretendedGpu, crystals: dict[str, Atoms]) -> None:
    which = MODELS[name]
    model = random_model(**which) if isinstance(which, dict) else which
    small = list(crystals.values())
    expected = Predictor(model, device="cpu")
    for structures in (small, rattled(3), [*small[:20], *rattled(2)]):
        found = on_gpu(gpu, model, structures)
        assert not gpu.mixed, gpu.report()
        assert not gpu.atomics, gpu.report()
        agree(found, expected.predict_many(structures))
