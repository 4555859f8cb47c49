"""Graphs of a whole dataset: stopped and continued, one at fault among many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from recinet_ase import ReciNetError
from recinet_ase.data import conversion
from recinet_ase.data.conversion import ConversionStopped, build_store, cached_store, convert
from recinet_ase.data.published import JARVIS
from recinet_ase.data.store import PackedStore, StoreSettings, join_stores


def equal(one: PackedStore, other: PackedStore) -> None:
    assert one.ids == other.ids and one.rejected == other.rejected
    assert one.arrays.keys() == other.arrays.keys()
    for key, value in one.arrays.items():
        torch.testing.assert_close(other.arrays[key], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stopped_conversion_goes_on(
    workers: int, jarvis_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "CHUNK", 4)
    monkeypatch.setattr(conversion, "PART", 8)
    pairs = list(JARVIS.records(jarvis_folder).items())[:30]
    pairs[5] = ("bad", Atoms("Cu2", positions=[[0, 0, 0], [0.1, 0, 0]], cell=[4] * 3, pbc=True))
    whole = build_store(pairs, StoreSettings())
    source = JARVIS.archive_path(jarvis_folder)
    asked = 0

    def attempt(rows: list[tuple[str, Any]], chunks: int) -> PackedStore:
        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked % chunks == 0

        return cached_store(source, lambda: rows, StoreSettings(), tmp_path, workers, stop=stop)

    done = 0
    for chunks in (3, 1):
        lost = [(key, ValueError("not read again")) for key, _ in pairs[:done]] + pairs[done:]
        with pytest.raises(ConversionStopped) as stopped:
            attempt(lost, chunks)
        now = int(str(stopped.value).split()[2])
        assert now == done + 4 * chunks
        done = now
    lost = [(key, ValueError("not read again")) for key, _ in pairs[:done]] + pairs[done:]
    equal(attempt(lost, 99), whole)
    equal(attempt([], 99), whole)  # from the cache
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_one_crystal_that_fails_late_costs_no_other(
    jarvis_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long cell has too many waves, which shows only when the graphs are reduced together."""
    pairs: list[tuple[str, Any]] = list(JARVIS.records(jarvis_folder).items())[:5]
    n = 4000
    coords = np.zeros((n, 3))
    coords[:, 2] = np.arange(n) / n
    long = Atoms(f"Cu{n}", scaled_positions=coords, cell=[60, 60, 2.5 * n], pbc=True)
    store = convert([*pairs[:3], ("long", long), *pairs[3:]], StoreSettings())
    assert store.ids == [key for key, _ in pairs]
    assert "too many reciprocal lattice vectors" in store.rejected["long"]


def test_stores_are_joined(jarvis_folder: Path) -> None:
    pairs = list(JARVIS.records(jarvis_folder).items())[:9]
    settings = StoreSettings(reduce=False)
    parts = [convert(pairs[:4], settings), convert([], settings), convert(pairs[4:], settings)]
    equal(join_stores(parts), convert(pairs, settings))
    with pytest.raises(ReciNetError, match="two crystals have the id"):
        join_stores([parts[0], parts[0]])
