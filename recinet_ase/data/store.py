"""The packed store: all graphs of a dataset in one set of flat arrays.

It is built once per dataset and graph setting, kept in a safetensors file named by a
fingerprint of both, and loaded whole. A batch is index arithmetic on the arrays; no
Python runs per crystal during training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from recinet_ase.errors import ReciNetError
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.models.files import replacing

STORE_VERSION = 1

_PADDING = (64, 512, 512)  # atoms, edges and pairs are filled up to multiples of these


@dataclass(frozen=True)
class StoreSettings:
    """What the arrays of a store depend on, besides the structures.

    Attributes:
        graph: Neighbour rule.
        reduce: Merge symmetry-equivalent atoms and edges.
        k_max: Cutoff of the reciprocal kernels in 1/angstrom.
        n_waves: Radial functions of the kernels.
        wave_norm: What the kernels are divided by.
    """

    graph: GraphSettings = field(default_factory=GraphSettings)
    reduce: bool = True
    k_max: float = 4.0
    n_waves: int = 16
    wave_norm: str = "volume"


def fingerprint(sources: Path | Sequence[Path], settings: StoreSettings) -> str:
    """Short hash of the source files' contents, the settings and the store's format.

    Of several files the names count too (and not their order, nor the folder they are in).
    """
    paths = [sources] if isinstance(sources, Path) else sorted(sources, key=lambda path: path.name)
    digest = hashlib.sha256()
    for path in paths:
        if len(paths) > 1:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    digest.update(json.dumps(asdict(settings), sort_keys=True).encode())
    digest.update(str(STORE_VERSION).encode())
    return digest.hexdigest()[:16]


def cache_dir(chosen: str | Path | None = None) -> Path:
    """Folder of built stores: the argument, ``RECINET_CACHE_DIR``, or ``~/.cache/recinet_ase``."""
    base = chosen or os.environ.get("RECINET_CACHE_DIR")
    return Path(base).expanduser() if base else Path.home() / ".cache" / "recinet_ase"


class PackedStore:
    """Graphs of many crystals, ready to be batched by index.

    Args:
        ids: Identifier of each crystal.
        arrays: Flat arrays named like the fields of `CrystalBatch`, with indices local to
            each crystal, and ``atom_ptr``, ``edge_ptr``, ``pair_ptr``: where each crystal's
            rows start, ``[n + 1]``.
        skipped: Crystals left out, with the reason: structures that could not be read, or that
            make no graph.
    """

    def __init__(
        self,
        ids: Sequence[str],
        arrays: dict[str, torch.Tensor],
        skipped: dict[str, str] | None = None,
    ) -> None:
        self.ids = list(ids)
        self.position = {key: i for i, key in enumerate(self.ids)}
        self.arrays = arrays
        self.skipped = skipped or {}

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> PackedStore:
        """The store with its arrays on a device."""
        moved = {key: value.to(device) for key, value in self.arrays.items()}
        return PackedStore(self.ids, moved, self.skipped)

    def edges(self) -> torch.Tensor:
        """Number of edges of each crystal, ``[n]``."""
        return self.arrays["edge_ptr"].diff()

    def elements(self, index: torch.Tensor) -> list[int]:
        """Atomic numbers that occur in the given crystals, ascending."""
        rows, _ = _rows(self.arrays["atom_ptr"], index)
        return sorted(set(self.arrays["z"][rows].tolist()))

    def batch(self, index: torch.Tensor, pad: bool = False) -> CrystalBatch:
        """The crystals at ``index`` (int64 ``[B]``) as one batch.

        Args:
            index: Positions in the store.
            pad: Add rows of zero weight up to round sizes. They change no result; the
                few distinct shapes let matrix kernels that are compiled for a shape
                (oneDNN's bfloat16, ``torch.compile``) be reused.
        """
        batch = self._batch(index)
        return batch.padded(*_PADDING) if pad else batch

    def _batch(self, index: torch.Tensor) -> CrystalBatch:
        a = self.arrays
        atom_rows, crystal = _rows(a["atom_ptr"], index)
        edge_rows, edge_crystal = _rows(a["edge_ptr"], index)
        atoms = a["atom_ptr"][index + 1] - a["atom_ptr"][index]
        first = torch.cumsum(atoms, 0) - atoms  # first atom of each crystal in the batch
        shift = first[edge_crystal]
        extra: dict[str, Any] = {}
        if "pair_kernel" in a:
            pair_rows, pair_crystal = _rows(a["pair_ptr"], index)
            pair_shift = first[pair_crystal]
            extra = {
                "pair_centre": a["pair_centre"][pair_rows] + pair_shift,
                "pair_neighbour": a["pair_neighbour"][pair_rows] + pair_shift,
                "pair_kernel": a["pair_kernel"][pair_rows],
            }
        else:
            extra = {"frac_coords": a["frac_coords"][atom_rows], "lattice": a["lattice"][index]}
        return CrystalBatch(
            z=a["z"][atom_rows].long(),
            crystal=crystal,
            centre=a["centre"][edge_rows] + shift,
            neighbour=a["neighbour"][edge_rows] + shift,
            distance=a["distance"][edge_rows],
            atom_weight=a["atom_weight"][atom_rows].float(),
            edge_count=a["edge_count"][edge_rows].float(),
            n_crystals=len(index),
            **extra,
        )

    def save(self, path: Path) -> None:
        """Write the store atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"ids": json.dumps(self.ids), "skipped": json.dumps(self.skipped)}
        with replacing(path) as part:
            save_file(self.arrays, part, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> PackedStore:
        """Read a store.

        Raises:
            ReciNetError: If the file is not a store.
        """
        try:
            with safe_open(path, framework="pt") as handle:
                metadata = handle.metadata() or {}
                arrays = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
            return cls(json.loads(metadata["ids"]), arrays, json.loads(metadata["skipped"]))
        except Exception as error:
            raise ReciNetError(f"{path} is no packed store ({error}); delete it") from None


def _rows(ptr: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the chosen segments of a flat array, and the place in ``index`` of each row."""
    start = ptr[index]
    count = ptr[index + 1] - start
    owner = torch.repeat_interleave(torch.arange(len(index), device=ptr.device), count)
    before = torch.cumsum(count, 0) - count
    rows = torch.arange(len(owner), device=ptr.device) + (start - before)[owner]
    return rows, owner


def _convert(task: tuple[str, Any, StoreSettings]) -> tuple[str, dict[str, np.ndarray] | str]:
    """One structure to arrays, or the reason why not (runs in a worker process)."""
    from recinet_ase.graph.adapters import to_crystal
    from recinet_ase.graph.crystal import neighbours_of
    from recinet_ase.graph.symmetry import reduce_crystal
    from recinet_ase.graph.waves import WaveBasis

    key, structure, settings = task
    try:
        if isinstance(structure, Exception):
            raise structure
        crystal = to_crystal(structure)
        if settings.reduce:
            basis = WaveBasis(settings.n_waves, settings.k_max, settings.wave_norm).double()
            r = reduce_crystal(crystal, basis, settings.graph)
            return key, {
                "z": r.z.astype(np.int16),
                "atom_weight": r.atom_weight.astype(np.int16),
                "centre": r.edge_index[0].astype(np.int32),
                "neighbour": r.edge_index[1].astype(np.int32),
                "distance": r.edge_distance.astype(np.float32),
                "edge_count": r.edge_count.astype(np.int16),
                "pair_centre": r.pair_index[0].astype(np.int32),
                "pair_neighbour": r.pair_index[1].astype(np.int32),
                "pair_kernel": r.pair_kernel.astype(np.float32),
            }
        found = neighbours_of(crystal, settings.graph)
    except ReciNetError as error:
        return key, str(error)
    except Exception as error:  # one bad structure must not end the building of the store
        return key, f"{type(error).__name__}: {' '.join(str(error).split())}"
    return key, {
        "z": crystal.numbers.astype(np.int16),
        "atom_weight": np.ones(len(crystal), np.int16),
        "frac_coords": crystal.frac_coords.astype(np.float32),
        "lattice": crystal.lattice.astype(np.float32)[None],
        "centre": found.centre.astype(np.int32),
        "neighbour": found.neighbour.astype(np.int32),
        "distance": found.distance.astype(np.float32),
        "edge_count": np.ones(len(found.centre), np.int16),
    }


def build_store(
    structures: Iterable[tuple[str, Any]],
    settings: StoreSettings,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> PackedStore:
    """Convert structures to graphs and pack them.

    Args:
        structures: ``(id, structure)`` pairs; anything that `to_crystal` takes, or the exception
            that reading it raised.
        settings: Graph rule and reduction.
        workers: Worker processes; 1 converts in this process.
        progress: Called with the number of crystals done.

    Returns:
        The store; structures that are refused are listed in ``skipped``.
    """
    tasks = ((key, structure, settings) for key, structure in structures)
    ids: list[str] = []
    skipped: dict[str, str] = {}
    rows: list[dict[str, np.ndarray]] = []

    def collect(results: Iterable[tuple[str, dict[str, np.ndarray] | str]]) -> None:
        for done, (key, result) in enumerate(results, 1):
            if isinstance(result, str):
                skipped[key] = result
            else:
                ids.append(key)
                rows.append(result)
            if progress is not None:
                progress(done)

    if workers > 1:
        with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            collect(pool.map(_convert, tasks, chunksize=64))
    else:
        collect(map(_convert, tasks))
    if not rows:
        first = next(iter(skipped.items()), ("", "there are none"))
        raise ReciNetError(
            f"none of the {len(skipped)} structures could be converted ({first[0]}: {first[1]})"
        )
    # ASE gives coordinates in columns, and a file holds rows alone.
    arrays = {
        key: torch.from_numpy(np.ascontiguousarray(np.concatenate([r[key] for r in rows])))
        for key in rows[0]
    }
    for kind, key in (("atom", "z"), ("edge", "distance"), ("pair", "pair_kernel")):
        if key in arrays:
            counts = torch.tensor([0, *(len(r[key]) for r in rows)])
            arrays[f"{kind}_ptr"] = torch.cumsum(counts, 0)
    return PackedStore(ids, arrays, skipped)


def cached_store(
    sources: Path | Sequence[Path],
    structures: Callable[[], Iterable[tuple[str, Any]]],
    settings: StoreSettings,
    folder: Path,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
    name: str = "dataset",
    begin: Callable[[Path], None] | None = None,
) -> PackedStore:
    """The store of a dataset from the cache, built first if it is not there.

    Args:
        sources: The dataset's files; their contents are the fingerprint's.
        structures: Called to read the structures if the store has to be built.
        settings: Graph rule and reduction.
        folder: Cache folder.
        workers: Worker processes for building.
        progress: Called with the number of crystals done while building.
        name: The dataset's name, for the file of a dataset of several files.
        begin: Called with the store's path before it is built.
    """
    paths = [sources] if isinstance(sources, Path) else list(sources)
    stem = paths[0].name.split(".")[0] if len(paths) == 1 else Path(name).name
    path = folder / f"{stem}-{fingerprint(paths, settings)}.safetensors"
    if path.exists():
        return PackedStore.load(path)
    if begin is not None:
        begin(path)
    store = build_store(structures(), settings, workers, progress)
    store.save(path)
    return store
