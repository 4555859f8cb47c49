"""Labelled cells: energies, forces and stresses in ASE's units and signs, as flat arrays."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.units import GPa

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.forces.batch import ForceBatch, ForceGraph
from recinet_ase.forces.network import ForceNetworkConfig
from recinet_ase.graph.crystal import Crystal
from recinet_ase.graph.upload import upload

KBAR = 0.1 * GPa
"""A kilobar in eV/angstrom^3."""

UNITS = {"ase": 1.0, "gpa": GPa, "vasp": -KBAR}
"""Stresses: eV/angstrom^3 or GPa, positive under tension, and VASP's kilobars, positive under
compression. Energies are eV and forces eV/angstrom in all."""

_SMALLEST_STRAIN, _LARGEST_STRAIN = 0.003, 0.15
_LARGEST_MOVE = 0.15  # angstrom
_PAIRS = 300
_ENOUGH_PAIRS = 8
_CLEAR = 0.8  # correlation from which a slope says something


@dataclass(frozen=True)
class Labels:
    """Labels of a batch, NaN where there is none.

    Attributes:
        energy: Of each cell in eV, float64 ``[B]``.
        forces: In eV/angstrom ``[N, 3]``.
        stress: In eV/angstrom^3, positive under tension ``[B, 3, 3]``.
    """

    energy: torch.Tensor
    forces: torch.Tensor
    stress: torch.Tensor


@dataclass(frozen=True)
class LabelledCells:
    """Cells and what was computed for them (S cells, N atoms in all).

    Attributes:
        ids: Unique ids.
        parts: ``"train"``, ``"val"`` or ``"test"`` where the data say so, else ``""``.
        start: First atom of each cell, and the number of all, ``[S + 1]``.
        numbers: Atomic numbers ``[N]``.
        frac_coords: Fractional coordinates in [0, 1) ``[N, 3]``.
        lattice: Lattice vectors as rows, angstrom ``[S, 3, 3]``.
        neighbours: Most neighbours of an atom, and of its average atom, within the cutoff of the
            network that the cells were read for ``[S, 2]``.
        energy: Total energies in eV, NaN where there is none ``[S]``.
        forces: In eV/angstrom ``[N, 3]``.
        stress: In eV/angstrom^3, positive under tension; NaN where there is none ``[S, 3, 3]``.
    """

    ids: list[str]
    parts: list[str]
    start: np.ndarray
    numbers: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray
    neighbours: np.ndarray
    energy: np.ndarray
    forces: np.ndarray
    stress: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_atoms(self) -> np.ndarray:
        """Atoms of each cell ``[S]``."""
        return np.diff(self.start)

    def crystal(self, i: int) -> Crystal:
        """A cell's structure."""
        rows = slice(self.start[i], self.start[i + 1])
        return Crystal(self.numbers[rows].astype(np.int64), self.frac_coords[rows], self.lattice[i])

    def batch(
        self,
        chosen: Sequence[int],
        network: ForceNetworkConfig,
        device: torch.device | str = "cpu",
    ) -> tuple[ForceBatch, Labels]:
        """Cells as one batch with its labels.

        Graphs are built here, which is a few per cent of a step: kept, they would be gigabytes.
        """
        graphs = [graph_of(self.crystal(i), network) for i in chosen]
        rows = np.concatenate([np.arange(self.start[i], self.start[i + 1]) for i in chosen])
        return ForceBatch.join(graphs, device=device), Labels(
            upload(torch.from_numpy(self.energy[chosen]), device),
            upload(torch.from_numpy(self.forces[rows]), device),
            upload(torch.from_numpy(self.stress[chosen]), device),
        )

    def select(self, chosen: np.ndarray) -> LabelledCells:
        """Some of the cells."""
        counts = self.n_atoms[chosen]
        rows = np.concatenate([np.arange(self.start[i], self.start[i + 1]) for i in chosen])
        return LabelledCells(
            ids=[self.ids[i] for i in chosen],
            parts=[self.parts[i] for i in chosen],
            start=np.concatenate(([0], np.cumsum(counts))),
            numbers=self.numbers[rows],
            frac_coords=self.frac_coords[rows],
            lattice=self.lattice[chosen],
            neighbours=self.neighbours[chosen],
            energy=self.energy[chosen],
            forces=self.forces[rows],
            stress=self.stress[chosen],
        )

    def elements(self) -> list[list[int]]:
        """Atomic numbers in each cell, ascending."""
        return [
            np.unique(self.numbers[a:b]).tolist()
            for a, b in zip(self.start[:-1], self.start[1:], strict=True)
        ]

    def save(self, path: Path, rejected: dict[str, str]) -> None:
        """Write as an npz file, atomically, with the reasons of what was left out."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        part = path.with_suffix(".part")
        with part.open("wb") as handle:
            np.savez(handle, left_out=np.array(json.dumps(rejected)), **arrays)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> tuple[LabelledCells, dict[str, str]]:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as found:
            arrays = {f.name: found[f.name] for f in fields(cls)}
            rejected = json.loads(str(found["left_out"]))
        lists = {key: arrays[key].tolist() for key in ("ids", "parts")}
        return cls(**{**arrays, **lists}), rejected


def graph_of(crystal: Crystal, network: ForceNetworkConfig) -> ForceGraph:
    """The graph of a crystal for a network.

    Raises:
        StructureError: For overlapping atoms, or an atom without neighbours in the cutoff.
    """
    return ForceGraph.build(crystal, network.cutoff, network.wave_cutoff)


class Collector:
    """Gathers labelled cells one by one, and what cannot be used with its reason.

    Args:
        network: The network that they are for.
    """

    def __init__(self, network: ForceNetworkConfig) -> None:
        self.network = network
        self.rejected: dict[str, str] = {}
        self._rows: dict[str, tuple[Crystal, str, tuple[int, float], float, np.ndarray, np.ndarray]]
        self._rows = {}

    def add(
        self,
        key: str,
        crystal: Crystal,
        energy: float | None,
        forces: np.ndarray,
        stress: np.ndarray | None,
        part: str = "",
    ) -> None:
        """Take a cell, or note why not.

        Args:
            key: Its id.
            crystal: The structure.
            energy: Total energy in eV, if there is one.
            forces: ``[N, 3]`` in eV/angstrom.
            stress: ``[3, 3]`` in eV/angstrom^3, positive under tension, if there is one.
            part: ``"train"``, ``"val"`` or ``"test"`` where the data say so.
        """
        if key in self._rows or key in self.rejected:
            self.rejected[f"{key} (again)"] = f"the id {key} occurs twice"
            return
        try:
            if np.shape(forces) != (len(crystal), 3):
                raise StructureError(f"forces of shape {np.shape(forces)} for {len(crystal)} atoms")
            for name, value in (("energy", energy), ("forces", forces), ("stress", stress)):
                if value is not None and not np.isfinite(value).all():
                    raise StructureError(f"{name} not finite")
            graph = graph_of(crystal, self.network)
        except StructureError as error:
            self.rejected[key] = str(error)
            return
        counts = np.bincount(graph.edge_index[0], minlength=len(crystal))
        self._rows[key] = (
            crystal,
            part,
            (int(counts.max()), float(counts.mean())),
            np.nan if energy is None else float(energy),
            np.asarray(forces, dtype=np.float32),
            np.full((3, 3), np.nan) if stress is None else stress,
        )

    def cells(self) -> LabelledCells:
        """All that were taken.

        Raises:
            ReciNetError: If there are none.
        """
        if not self._rows:
            first = next(iter(self.rejected.items()), ("", "the data are empty"))
            raise ReciNetError(f"no configuration with forces can be used ({': '.join(first)})")
        crystals, parts, neighbours, energy, forces, stress = zip(*self._rows.values(), strict=True)
        return LabelledCells(
            ids=list(self._rows),
            parts=list(parts),
            start=np.cumsum([0, *map(len, crystals)]),
            numbers=np.concatenate([c.numbers for c in crystals]).astype(np.uint8),
            frac_coords=np.concatenate([c.frac_coords for c in crystals]),
            lattice=np.stack([c.lattice for c in crystals]),
            neighbours=np.array(neighbours, dtype=np.float32),
            energy=np.array(energy, dtype=np.float64),
            forces=np.concatenate(forces),
            stress=np.stack(stress).astype(np.float32),
        )


def stress_slope(cells: LabelledCells) -> float | None:
    """What the stresses must be multiplied by to be derivatives of the energies.

    Of two configurations of the same atoms, one a strained and slightly moved copy of the other,
    the difference of energies is ``V sigma : strain - F . du`` with the mean of both ends'
    stresses and forces, to third order. The slope of the differences less the work of the forces
    against ``V sigma : strain`` is one if unit and sign are right, minus one if the sign is wrong.

    Returns:
        The slope, None if fewer than eight pairs allow it or they do not agree.
    """
    groups: dict[bytes, list[int]] = defaultdict(list)
    usable = np.isfinite(cells.energy) & np.isfinite(cells.stress).all((1, 2))
    for i in np.flatnonzero(usable):
        groups[cells.numbers[cells.start[i] : cells.start[i + 1]].tobytes()].append(int(i))
    found = []
    for members in groups.values():
        # Neighbours by volume per cell, and the first against some: scans come in any order.
        pairs = [*((members[0], j) for j in members[2:6]), *pairwise(members)]
        found += [p for i, j in pairs if (p := _work(cells, i, j)) is not None]
        if len(found) >= _PAIRS:
            break
    if len(found) < _ENOUGH_PAIRS:
        return None
    stress_work, rest = np.array(found).T
    if not stress_work.any() or abs(np.corrcoef(stress_work, rest)[0, 1]) < _CLEAR:
        return None
    return float((stress_work @ rest) / (stress_work @ stress_work))


def _work(cells: LabelledCells, i: int, j: int) -> tuple[float, float] | None:
    """``V sigma : strain`` and the energy difference it should be, eV an atom."""
    strain = np.linalg.solve(cells.lattice[i], cells.lattice[j]) - np.eye(3)
    strain = 0.5 * (strain + strain.T)
    if not _SMALLEST_STRAIN < np.abs(strain).max() < _LARGEST_STRAIN:
        return None
    a, b = (slice(cells.start[k], cells.start[k + 1]) for k in (i, j))
    shift = cells.frac_coords[b] - cells.frac_coords[a]
    shift -= np.round(shift)
    lattice = 0.5 * (cells.lattice[i] + cells.lattice[j])
    moved = shift @ lattice
    if np.abs(moved).max() > _LARGEST_MOVE:
        return None
    volume = abs(np.linalg.det(lattice))
    stress = 0.5 * (cells.stress[i] + cells.stress[j])
    forces = 0.5 * (cells.forces[a] + cells.forces[b])
    n = len(forces)
    rest = cells.energy[j] - cells.energy[i] + float((forces * moved).sum())
    return float(volume * (stress * strain).sum()) / n, rest / n


def check_stress(cells: LabelledCells, units: str) -> LabelledCells:
    """The cells, if their stresses are derivatives of their energies as far as can be seen.

    Raises:
        ReciNetError: If unit or sign are wrong, with the units that would be right.
    """
    slope = stress_slope(cells)
    if slope is None or 0.5 < slope < 2:
        return cells
    right = [name for name, factor in UNITS.items() if 0.5 < slope * UNITS[units] / factor < 2]
    hint = f"; they agree with --units {right[0]}" if right else ""
    sign = "the wrong sign" if -2 < slope < -0.5 else f"{1 / slope:.3g} times the size"
    raise ReciNetError(
        f"the stresses have {sign} that the energies of strained cells ask for, read with --units "
        f"{units}{hint}. Learn without them (--props energy,forces) if that cannot be"
    )
