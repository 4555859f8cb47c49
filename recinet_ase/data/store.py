"""The packed store: all graphs of a dataset in one set of flat arrays.

It is built once per dataset and graph setting (`recinet_ase.data.conversion`), kept in a
safetensors file named by a fingerprint of both, and loaded whole. A batch is index arithmetic
on the arrays; no Python runs per crystal during training.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from recinet_ase.errors import ReciNetError
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.graph.upload import upload
from recinet_ase.models.files import replacing

STORE_VERSION = 2

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
            each crystal, ``atom_ptr``, ``edge_ptr``, ``pair_ptr``: where each crystal's
            rows start, ``[n + 1]``, and ``volume``: A^3 an atom ``[n]``.
        rejected: Crystals left out, with the reason: structures that could not be read, or that
            make no graph.
    """

    def __init__(
        self,
        ids: Sequence[str],
        arrays: dict[str, torch.Tensor],
        rejected: dict[str, str] | None = None,
    ) -> None:
        self.ids = list(ids)
        self.position = {key: i for i, key in enumerate(self.ids)}
        self.arrays = arrays
        self.rejected = rejected or {}
        self.host = {key: value.cpu() for key, value in arrays.items() if key.endswith("_ptr")}

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str) -> PackedStore:
        """The store with its arrays on a device."""
        moved = {key: value.to(device) for key, value in self.arrays.items()}
        return PackedStore(self.ids, moved, self.rejected)

    def prefixed(self, prefix: str) -> PackedStore:
        """The store with something before every id."""
        if not prefix:
            return self
        rejected = {prefix + key: reason for key, reason in self.rejected.items()}
        return PackedStore([prefix + key for key in self.ids], self.arrays, rejected)

    def positions(self, ids: Iterable[str]) -> torch.Tensor:
        """Positions of those of the ids that are in the store, int64, ascending."""
        return torch.tensor(sorted(self.position[i] for i in ids if i in self.position)).long()

    def edges(self) -> torch.Tensor:
        """Number of edges of each crystal, ``[n]``."""
        return self.arrays["edge_ptr"].diff()

    @cached_property
    def formulas(self) -> np.ndarray:
        """A number for each crystal that is equal where the reduced formula is, int64 ``[n]``."""
        a = {key: self.arrays[key].cpu().numpy() for key in ("z", "atom_weight", "atom_ptr")}
        owner = np.repeat(np.arange(len(self)), np.diff(a["atom_ptr"]))
        kind, where = np.unique(owner * 256 + a["z"], return_inverse=True)
        count = np.bincount(where, weights=a["atom_weight"]).astype(np.int64)
        crystal = kind // 256
        first = np.flatnonzero(np.diff(crystal, prepend=-1))
        count //= np.gcd.reduceat(count, first)[crystal]
        # A sum of 64 random bits for each element and its count, which wraps around.
        random = np.random.default_rng(0).integers(1, 1 << 62, (2, 1 << 12), dtype=np.uint64)
        weight = random[0][kind % 256] * random[1][count % (1 << 12)]
        return np.unique(np.add.reduceat(weight, first), return_inverse=True)[1]

    def elements(self, index: torch.Tensor) -> list[int]:
        """Atomic numbers that occur in the given crystals, ascending."""
        rows, _ = _rows(self.arrays["atom_ptr"], index)
        return sorted(set(self.arrays["z"][rows].tolist()))

    def batch(self, index: torch.Tensor, pad: bool = False) -> CrystalBatch:
        """The crystals at ``index`` (int64 ``[B]``) as one batch.

        Args:
            index: Positions in the store, best on the host, where their sizes are known.
            pad: Add rows of zero weight up to round sizes. They change no result; the
                few distinct shapes let matrix kernels that are compiled for a shape
                (oneDNN's bfloat16, ``torch.compile``) be reused.
        """
        batch = self._batch(index)
        return batch.padded(*_PADDING) if pad else batch

    def _batch(self, index: torch.Tensor) -> CrystalBatch:
        """The graphs of some crystals, renumbered as one batch."""
        a, total = self.arrays, {}
        device = a["atom_ptr"].device
        if index.device.type == "cpu":
            for key, ptr in self.host.items():
                total[key] = int((ptr[index + 1] - ptr[index]).sum())
            index = upload(index, device)
        atom_rows, crystal = _rows(a["atom_ptr"], index, total.get("atom_ptr"))
        edge_rows, edge_crystal = _rows(a["edge_ptr"], index, total.get("edge_ptr"))
        atoms = a["atom_ptr"][index + 1] - a["atom_ptr"][index]
        first = torch.cumsum(atoms, 0) - atoms  # first atom of each crystal in the batch
        shift = first[edge_crystal]
        extra: dict[str, Any] = {}
        if "pair_kernel" in a:
            pair_rows, pair_crystal = _rows(a["pair_ptr"], index, total.get("pair_ptr"))
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
        metadata = {"ids": json.dumps(self.ids), "skipped": json.dumps(self.rejected)}
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


def _rows(
    ptr: torch.Tensor, index: torch.Tensor, total: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of the chosen segments of a flat array, and the place in ``index`` of each row.

    Args:
        ptr: Where the segments begin.
        index: The chosen ones.
        total: Number of their rows, where it is known.
    """
    start = ptr[index]
    count = ptr[index + 1] - start
    owner = torch.repeat_interleave(
        torch.arange(len(index), device=ptr.device), count, output_size=total
    )
    before = torch.cumsum(count, 0) - count
    rows = torch.arange(len(owner), device=ptr.device) + (start - before)[owner]
    return rows, owner


def join_stores(stores: Sequence[PackedStore]) -> PackedStore:
    """Several stores as one, in their order.

    Args:
        stores: With different ids; one that holds no crystal may be among them.

    Raises:
        ReciNetError: If two hold a crystal of the same id.
    """
    if len(stores) == 1:
        return stores[0]
    ids = [key for store in stores for key in store.ids]
    rejected = {key: reason for store in stores for key, reason in store.rejected.items()}
    parts = [store.arrays for store in stores if len(store)]
    arrays: dict[str, torch.Tensor] = {}
    for key in parts[0] if parts else ():
        if key.endswith("_ptr"):
            counts = torch.cat([part[key].diff() for part in parts])
            arrays[key] = torch.cat((counts.new_zeros(1), torch.cumsum(counts, 0)))
        else:
            arrays[key] = torch.cat([part[key] for part in parts])
    joined = PackedStore(ids, arrays, rejected)
    if len(joined.position) < len(ids):
        twice = next(key for i, key in enumerate(ids) if joined.position[key] != i)
        raise ReciNetError(f"two crystals have the id {twice!r}; ids must be unique")
    return joined
