"""Predictions on a GPU, as far as that can be seen without one."""

from __future__ import annotations

import pickle
from dataclasses import fields

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from pretended import GPU, PretendedGpu
from support import random_model

from recinet_ase import Predictor
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.waves import Waves
from recinet_ase.inference import predictor as inference
from recinet_ase.inference.result import Prediction
from recinet_ase.nn import reciprocal


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
    kinds = (small, 340), (rattled(3), 380), ([*small[:20], *rattled(2)], 440)
    for structures, most in kinds:
        found = on_gpu(gpu, model, structures)
        assert not gpu.mixed, gpu.report()
        assert not gpu.atomics, gpu.report()
        # The host waits once a batch, for the answers; nothing it sends makes it wait.
        assert gpu.waits == 1, gpu.report()
        assert all(kind != "waits" for _, kind in gpu.uploads), gpu.report()
        if name == "shipped":
            assert gpu.kernels <= most, gpu.report()
        agree(found, expected.predict_many(structures))


def test_as_many_kernels_for_many_large_cells(gpu: PretendedGpu) -> None:
    """Cells of like size are summed together, tables too large to keep one by one."""
    model = random_model()
    counts = []
    for n in (2, 6):
        on_gpu(gpu, model, rattled(n))
        counts.append(gpu.kernels)
    assert counts[0] == counts[1]


def test_cells_too_large_for_a_table(
    gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch, crystals: dict[str, Atoms]
) -> None:
    structures = [*list(crystals.values())[:5], *rattled(2)]
    expected = Predictor(random_model(), device="cpu").predict_many(structures)
    monkeypatch.setattr(reciprocal, "_TABLE_LIMIT_ELSEWHERE", 4 * 54 * 1000)
    found = on_gpu(gpu, random_model(), structures)
    assert not gpu.mixed and gpu.waits == 1, gpu.report()
    agree(found, expected)


def test_several_windows_in_one_call(gpu: PretendedGpu, crystals: dict[str, Atoms]) -> None:
    cells = list(crystals.values())
    windows = [cells[:20], [*cells[20:30], *rattled(1)], [cells[0]], []]
    expected = Predictor("jarvis-eform", device="cpu")
    with gpu:
        predictor = Predictor("jarvis-eform", device="cuda")
        prepared = [predictor.preparation(some) for some in windows]
        sent = [pickle.loads(pickle.dumps(window.batches)) for window in prepared]
        gpu.reset()
        loaded = predictor.computation.load(sent)
        assert gpu.waits == gpu.kernels == 0 < gpu.uploads.total(), gpu.report()
        gpu.reset()
        done = predictor.computation.together(loaded)
    # One for the answers, one for a first look at the span of the embeddings.
    assert not gpu.mixed and gpu.waits <= 3, gpu.report()
    # Graphs are there: what is sent now are the sizes of groups, that of one large cell too.
    assert gpu.uploads.total() <= 6, gpu.report()
    for cells, window, parts in zip(windows, prepared, done, strict=True):
        agree(predictor.results_of(window, parts), expected.predict_many(cells))


def test_representations_and_what_sites_add(gpu: PretendedGpu, crystals: dict[str, Atoms]) -> None:
    cells = list(crystals.values())[:8]
    here = Predictor("jarvis-eform", device="cpu")
    with gpu:
        there = Predictor("jarvis-eform", device="cuda")
        vectors, parts = there.embed(cells), there.contributions(cells[0])
    assert not gpu.mixed, gpu.report()
    np.testing.assert_allclose(vectors, here.embed(cells), atol=1e-4)
    np.testing.assert_allclose(parts.sites, here.contributions(cells[0]).sites, atol=1e-5)


def test_batches_survive_a_pipe(crystals: dict[str, Atoms]) -> None:
    window = Predictor(random_model(), device="cpu").preparation(crystals.values())
    (batch,) = window.batches[0].graphs.values()
    batch.sizes  # noqa: B018 (kept in the object, and so sent)
    for sent in (pickle.loads(pickle.dumps(batch, protocol=5)), CrystalBatch.join([batch])):
        for f in fields(batch):
            one, two = getattr(batch, f.name), getattr(sent, f.name)
            if isinstance(one, Waves):
                one, two = one.index, two.index
            if isinstance(one, torch.Tensor):
                assert one.dtype == two.dtype and torch.equal(one, two)
            else:
                assert one == two
