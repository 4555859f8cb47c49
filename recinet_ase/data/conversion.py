"""From structures to a packed store, many crystals at a time, in parts that survive a stop.

Graphs are made as a screen makes them (`recinet_ase.graph.refinement`), with the reciprocal
kernels that training needs. Every few thousand structures are written to a folder beside the
store's file, from which an interrupted conversion goes on.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recinet_ase.data.store import PackedStore, StoreSettings, fingerprint, join_stores
from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import Crystal, neighbours_of
from recinet_ase.graph.neighbours import NeighbourList
from recinet_ase.graph.refinement import TRAINING, FlatGraphs, full_batch, reduce_graphs
from recinet_ase.graph.waves import WaveBasis

CHUNK = 256
"""Structures converted together."""

PART = 16 * CHUNK
"""Structures between two writes."""

_MOST_WORKERS = 8

_TYPES = {
    "z": torch.int16,
    "atom_weight": torch.int16,
    "centre": torch.int32,
    "neighbour": torch.int32,
    "distance": torch.float32,
    "edge_count": torch.int16,
    "pair_centre": torch.int32,
    "pair_neighbour": torch.int32,
    "pair_kernel": torch.float32,
    "frac_coords": torch.float32,
    "lattice": torch.float32,
}  # besides "volume", which no batch has


class ConversionStopped(ReciNetError):
    """A conversion that was asked to stop; what is done is kept."""


def default_workers() -> int:
    """One process for each core that this process may use, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(_MOST_WORKERS, cores or 1)


def convert(structures: Sequence[tuple[str, Any]], settings: StoreSettings) -> PackedStore:
    """The graphs of some structures.

    Args:
        structures: ``(id, structure)`` pairs; anything that `to_crystal` takes, or the exception
            that reading it raised.
        settings: Graph rule and reduction.

    Returns:
        The store; structures that are refused are listed in ``rejected``.
    """
    rejected: dict[str, str] = {}
    ready: list[_Item] = []
    for key, structure in structures:
        try:
            if isinstance(structure, Exception):
                raise structure
            crystal = to_crystal(structure)
            ready.append((key, crystal, neighbours_of(crystal, settings.graph)))
        except Exception as error:  # one bad structure must not end the building of the store
            rejected[key] = reason_of(error)
    basis = WaveBasis(settings.n_waves, settings.k_max, settings.wave_norm).double()
    stores = [*_graphs(ready, settings, basis), PackedStore([], {}, rejected)]
    return join_stores(stores)


_Item = tuple[str, Crystal, NeighbourList]
"""Id of a crystal, the crystal and its neighbours."""


def _graphs(items: list[_Item], settings: StoreSettings, basis: WaveBasis) -> Iterator[PackedStore]:
    """All graphs together; where that fails, in halves, down to the one at fault."""
    if not items:
        return
    ids = [key for key, _, _ in items]
    flat = FlatGraphs.join([crystal for _, crystal, _ in items], [found for _, _, found in items])
    try:
        if settings.reduce:
            batch = reduce_graphs(flat, settings.k_max, torch.float64, TRAINING)
            batch = batch.with_kernels(basis)
        else:
            batch = full_batch(flat, None)
    except Exception as error:
        if len(items) == 1:
            yield PackedStore([], {}, {ids[0]: reason_of(error)})
            return
        half = len(items) // 2
        yield from _graphs(items[:half], settings, basis)
        yield from _graphs(items[half:], settings, basis)
    else:
        volume = np.abs(np.linalg.det(flat.lattice)) / flat.n_atoms
        arrays = {**_arrays(batch), "volume": torch.from_numpy(volume.astype(np.float32))}
        yield PackedStore(ids, arrays)


def _arrays(batch: CrystalBatch) -> dict[str, torch.Tensor]:
    """A batch as the arrays of a store: indices local to each crystal, few bytes a number."""
    atoms = torch.bincount(batch.crystal, minlength=batch.n_crystals)
    shift = (torch.cumsum(atoms, 0) - atoms)[batch.crystal]
    values = {key: getattr(batch, key) for key in _TYPES}
    counts = {"atom": batch.crystal, "edge": batch.crystal[batch.centre]}
    for key in ("centre", "neighbour"):
        values[key] = values[key] - shift[batch.centre]
    if batch.pair_centre is not None:
        counts["pair"] = batch.crystal[batch.pair_centre]
        for key in ("pair_centre", "pair_neighbour"):
            values[key] = values[key] - shift[batch.pair_centre]
    arrays = {
        key: value.to(_TYPES[key]).contiguous()
        for key, value in values.items()
        if value is not None
    }
    for kind, owner in counts.items():
        rows = torch.bincount(owner, minlength=batch.n_crystals)
        arrays[f"{kind}_ptr"] = torch.cat((rows.new_zeros(1), torch.cumsum(rows, 0)))
    return arrays


def build_store(
    structures: Iterable[tuple[str, Any]],
    settings: StoreSettings,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    parts: Path | None = None,
    stop: Callable[[], bool] | None = None,
) -> PackedStore:
    """Convert structures to graphs and pack them.

    Args:
        structures: As of `convert`, in the same order each time.
        settings: Graph rule and reduction.
        workers: Worker processes; 1 converts in this process.
        progress: Called with the number of structures done.
        parts: Folder in which parts are kept until the store is complete, and from which an
            interrupted conversion goes on; None keeps none.
        stop: Asked now and then whether to stop.

    Returns:
        The store; structures that are refused are listed in ``rejected``.

    Raises:
        ReciNetError: If no structure could be converted.
        ConversionStopped: If ``stop`` said so.
    """
    stores, start = _kept(parts)
    done, cut = start, False
    pending: list[PackedStore] = []

    def chunks() -> Iterator[list[tuple[str, Any]]]:
        nonlocal cut
        rest = islice(structures, start, None)
        while chunk := list(islice(rest, CHUNK)):
            yield chunk  # the first in any case, so that every call gets on
            if stop is not None and stop():
                cut = next(rest, None) is not None
                return

    for n, store in _converted(chunks(), settings, workers):
        pending.append(store)
        done += n
        if progress is not None:
            progress(done)
        if parts is not None and done - start >= PART:
            stores.append(_save_part(parts, start, done, pending))
            pending, start = [], done
    if cut:
        if parts is not None:
            _save_part(parts, start, done, pending)
        raise ConversionStopped(f"stopped after {done:,} structures were converted")
    joined = join_stores([*stores, *pending])
    if not len(joined):
        first = next(iter(joined.rejected.items()), ("", "there are none"))
        raise ReciNetError(
            f"none of the {len(joined.rejected)} structures could be converted "
            f"({first[0]}: {first[1]})"
        )
    return joined


def _save_part(parts: Path, start: int, done: int, stores: list[PackedStore]) -> PackedStore:
    """Write the structures from ``start`` to ``done`` as one part."""
    part = join_stores(stores)
    part.save(parts / f"{start}-{done}.safetensors")
    return part


def _kept(parts: Path | None) -> tuple[list[PackedStore], int]:
    """The parts of an interrupted conversion in order, and the structures they stand for."""
    if parts is None:
        return [], 0
    named = {int(p.stem.partition("-")[0]): p for p in parts.glob("*-*[0-9].safetensors")}
    stores, done = [], 0
    while done in named:
        path = named[done]
        stores.append(PackedStore.load(path))
        done = int(path.stem.partition("-")[2])
    return stores, done


def _converted(
    chunks: Iterable[list[tuple[str, Any]]], settings: StoreSettings, workers: int
) -> Iterator[tuple[int, PackedStore]]:
    """The numbers of structures in chunks, and their stores, in order."""
    if workers == 1:
        for chunk in chunks:
            yield len(chunk), convert(chunk, settings)
        return
    with ProcessPoolExecutor(workers, initializer=_begin_worker) as pool:
        # A few chunks ahead: the structures of a whole dataset take a gigabyte.
        ahead: deque[tuple[int, Future[_Sent]]] = deque()
        try:
            for chunk in chunks:
                lean = [(key, _lean(structure)) for key, structure in chunk]
                ahead.append((len(chunk), pool.submit(_work, lean, settings)))
                if len(ahead) > 2 * workers:
                    yield _received(*ahead.popleft())
            while ahead:
                yield _received(*ahead.popleft())
        finally:
            for _, future in ahead:
                future.cancel()


def _lean(structure: Any) -> Any:
    """A record without its properties, which need not travel to a worker."""
    is_record = isinstance(structure, Mapping) and isinstance(structure.get("atoms"), Mapping)
    return structure["atoms"] if is_record else structure


def _begin_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


_Sent = tuple[list[str], dict[str, Any], dict[str, str]]
"""Ids, numpy arrays and refusals: tensors would travel through shared memory, a file each."""


def _work(structures: list[tuple[str, Any]], settings: StoreSettings) -> _Sent:
    store = convert(structures, settings)
    return store.ids, {key: value.numpy() for key, value in store.arrays.items()}, store.rejected


def _received(n: int, future: Future[_Sent]) -> tuple[int, PackedStore]:
    ids, arrays, rejected = future.result()
    return n, PackedStore(ids, {k: torch.from_numpy(v) for k, v in arrays.items()}, rejected)


def cached_store(
    sources: Path | Sequence[Path],
    structures: Callable[[], Iterable[tuple[str, Any]]],
    settings: StoreSettings,
    folder: Path,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    name: str = "dataset",
    begin: Callable[[Path], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> PackedStore:
    """The store of a dataset from the cache, built first if it is not there.

    Args:
        sources: The dataset's files; their contents are the fingerprint's.
        structures: Called to read the structures if the store has to be built.
        settings: Graph rule and reduction.
        folder: Cache folder.
        workers: Worker processes for building.
        progress: Called with the number of structures done while building.
        name: The dataset's name, for the file of a dataset of several files.
        begin: Called with the store's path before it is built.
        stop: Asked now and then whether to stop building.

    Raises:
        ReciNetError: If no structure could be converted.
        ConversionStopped: If ``stop`` said so; the next call goes on from there.
    """
    paths = [sources] if isinstance(sources, Path) else list(sources)
    stem = paths[0].name.split(".")[0] if len(paths) == 1 else Path(name).name
    path = folder / f"{stem}-{fingerprint(paths, settings)}.safetensors"
    if path.exists():
        return PackedStore.load(path)
    if begin is not None:
        begin(path)
    parts = path.with_suffix(".parts")
    store = build_store(structures(), settings, workers, progress, parts, stop)
    store.save(path)
    shutil.rmtree(parts, ignore_errors=True)
    return store
