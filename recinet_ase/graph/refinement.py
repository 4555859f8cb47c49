"""Symmetry-reduced graphs without a space group: colour refinement of many crystals at once.

The network sees species, distances and ``|G|`` only. Two atoms get the same features in
every layer if they belong to one class of an *equitable* partition: atoms of a class
have the same species, the same multiset of (distance, class of the neighbour), and the
same sums of the reciprocal kernel over every class. The coarsest such partition is
found by splitting classes until nothing changes, which for a whole screening window in
one set of arrays costs a hundredth of what finding space groups does, and gives the
same reduction.

Neither step compares multisets as such. Each atom gets a few real numbers that are
generic functions of its multiset (a sum over neighbours of a random weight of the
neighbour's class times a smooth function of the distance), and classes are split where
sorted numbers have a gap.

Coordinates of real files are rounded, so that atoms of a class are equal to a few digits only.
Which atoms are merged, and which one stands for its class, must then depend on the crystal
alone, not on the cell or the order of atoms that it is given in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import Crystal
from recinet_ase.graph.neighbours import NeighbourList
from recinet_ase.graph.waves import Waves, half_space_waves


class Tolerance(NamedTuple):
    """What counts as equal.

    Attributes:
        atoms: Atoms whose invariants follow each other this closely are one class.
        lengths: Edges between the same classes whose lengths follow each other this closely
            (angstrom) are one edge.
    """

    atoms: float
    lengths: float


PREDICTION = Tolerance(1e-5, 1e-5)
"""Far above the rounding of symmetric coordinates, far below what a prediction could show."""

TRAINING = Tolerance(1e-4, 2e-3)
"""Above the rounding of files with five decimals. On 1,986 crystals of JARVIS it leaves 21 % of the
edges (space groups within 0.01 A leave 20 %, `PREDICTION` 29 %) and changes formation energies by
1e-6 eV/atom on average, 2e-5 for 99 % of the crystals (``benchmarks/graphs/refinement.py``)."""

_BLOCK = 50_000  # entries of padded tables of atoms by waves, which then stay in the cache
_PROJECTIONS = 2
_WAVES = 100  # waves of a crystal on which atoms are compared, where it has so many
_CLASS_WEIGHTS = 4096  # classes of one crystal with weights of their own


@dataclass(frozen=True)
class FlatGraphs:
    """Full neighbour graphs of many crystals in one set of arrays (N atoms, E edges, B crystals).

    Attributes:
        numbers: Atomic numbers ``[N]``.
        crystal: Crystal of each atom ``[N]``, ascending.
        n_atoms: Atoms of each crystal ``[B]``.
        centre, neighbour: Receiving and neighbouring atom of each edge ``[E]``, sorted by
            centre.
        distance: Edge lengths in angstrom, float64 ``[E]``.
        frac_coords: Fractional coordinates ``[N, 3]``.
        lattice: Lattice vectors as rows, angstrom ``[B, 3, 3]``.
    """

    numbers: np.ndarray
    crystal: np.ndarray
    n_atoms: np.ndarray
    centre: np.ndarray
    neighbour: np.ndarray
    distance: np.ndarray
    frac_coords: np.ndarray
    lattice: np.ndarray

    @classmethod
    def join(cls, crystals: Sequence[Crystal], shells: Sequence[NeighbourList]) -> FlatGraphs:
        """Crystals and their neighbour lists."""
        n_atoms = np.array([len(c) for c in crystals])
        n_edges = np.array([len(f.centre) for f in shells])
        shift = np.repeat(np.cumsum(n_atoms) - n_atoms, n_edges)
        return cls(
            numbers=np.concatenate([c.numbers for c in crystals]),
            crystal=np.repeat(np.arange(len(crystals)), n_atoms),
            n_atoms=n_atoms,
            centre=np.concatenate([f.centre for f in shells]) + shift,
            neighbour=np.concatenate([f.neighbour for f in shells]) + shift,
            distance=np.concatenate([f.distance for f in shells]),
            frac_coords=np.concatenate([c.frac_coords for c in crystals]),
            lattice=np.stack([c.lattice for c in crystals]),
        )


class Partition(NamedTuple):
    """Equal atoms.

    Attributes:
        classes: Class of each atom, numbered over all crystals in the order of crystals,
            int64 ``[N]``.
        representative: One atom of each class, the same one in every cell, int64 ``[C]``.
    """

    classes: np.ndarray
    representative: np.ndarray


def equitable_partition(
    flat: FlatGraphs, waves: Waves | None, tolerance: float = PREDICTION.atoms
) -> Partition:
    """The coarsest equitable partition of each crystal.

    Args:
        flat: The graphs.
        waves: Their half-space waves, on which the partition has to be equitable too; None
            for networks without a lattice sum.
        tolerance: See `Tolerance.atoms`.
    """
    weights = np.random.default_rng(0).uniform(0.5, 1.5, (_CLASS_WEIGHTS, _PROJECTIONS))
    d = flat.distance
    shapes = (1 / d + 0.1 * d, np.sqrt(d) + 3 / (1 + d))
    first_edge = np.flatnonzero(np.diff(flat.centre, prepend=-1))
    first_atom = np.cumsum(flat.n_atoms) - flat.n_atoms
    classes = np.unique(flat.crystal * 256 + flat.numbers, return_inverse=True)[1]

    def class_weights() -> np.ndarray:
        # By the class's number inside its crystal, so that no other crystal has a say.
        lowest = np.minimum.reduceat(classes, first_atom)
        return weights[(classes - lowest[flat.crystal]) % _CLASS_WEIGHTS]

    while True:
        count = -1
        while classes.max() > count:
            count = classes.max()
            weight = class_weights()
            for column, shape in enumerate(shapes):
                value = np.add.reduceat(weight[flat.neighbour, column] * shape, first_edge)
                classes = _split(classes, value, tolerance)
        if waves is None or count + 1 == len(classes):
            break
        of_waves = _wave_invariant(flat, classes, waves, class_weights()[:, 0])
        classes = _split(classes, of_waves, tolerance)
        if classes.max() == count:
            break
    order = np.lexsort((value, classes))
    return Partition(classes, order[np.flatnonzero(np.diff(classes[order], prepend=-1))])


def _split(classes: np.ndarray, value: np.ndarray, tolerance: float) -> np.ndarray:
    """Classes cut wherever the sorted values of their atoms have a gap."""
    order = np.lexsort((value, classes))
    cut = (np.diff(classes[order]) != 0) | (np.diff(value[order]) > tolerance)
    split = np.empty_like(classes)
    split[order] = np.concatenate(([0], np.cumsum(cut)))
    return split


def _wave_invariant(
    flat: FlatGraphs, classes: np.ndarray, waves: Waves, weight: np.ndarray
) -> np.ndarray:
    """``(2/N) sum_half g(|G|) [cos_i A + sin_i B]`` for class weights, ``[N]``.

    Crystals without equal atoms are left out (zero). Of the others, the longest waves and
    whole shells of ``|G|`` only, about a hundred for the smallest cell that the crystal could
    have: these cannot agree by chance where one differs.
    """
    out = np.zeros(len(classes))
    first_atom = np.cumsum(flat.n_atoms) - flat.n_atoms
    sizes = np.bincount(classes)
    lowest = np.minimum.reduceat(classes, first_atom)
    open_ = np.flatnonzero(np.maximum.reduceat(sizes[classes], first_atom) > 1)
    # As many copies of a smaller cell at most: every class has a whole number of atoms there.
    copies = np.gcd.reduceat(sizes, lowest)
    volume = np.abs(np.linalg.det(flat.lattice)) / copies
    wave, count = _longest_waves(waves, open_, volume[open_])
    if not len(wave):
        return out
    index, length = waves.index.numpy()[wave], waves.length.numpy()[wave]
    filters = 1 / (1 + length**2) + 0.1 * np.cos(length)
    n_atoms = flat.n_atoms[open_]
    order = np.argsort(n_atoms * count, kind="stable")  # like sizes share padded blocks
    n, w = n_atoms[order], count[order]
    atom, first_wave = first_atom[open_][order], (np.cumsum(count) - count)[order]
    for block in _blocks(n, w):
        real_atom, atom_at = _padded(atom[block], n[block])
        real_wave, wave_at = _padded(first_wave[block], w[block])
        coords, waves_at = (
            torch.from_numpy(x) for x in (flat.frac_coords[atom_at], index[wave_at])
        )
        source = torch.from_numpy(weight[atom_at] * real_atom)[:, None]
        response = torch.from_numpy(filters[wave_at] * real_wave)[:, None]
        total = torch.zeros(len(atom_at), atom_at.shape[1], 1, dtype=torch.float64)
        step = max(1, _BLOCK // atom_at.size)  # a large supercell has thousands of waves
        for some in (slice(i, i + step) for i in range(0, wave_at.shape[1], step)):
            turns = coords @ waves_at[:, some].mT  # [b, n, w], in double precision
            angle = turns.sub_(turns.round()).mul_(2 * math.pi)
            for trig in (torch.cos(angle), torch.sin(angle)):
                total += trig @ (source @ trig * response[..., some]).mT
        sums = total[..., 0].numpy() * (2 / n[block])[:, None]
        out[atom_at[real_atom]] = sums[real_atom]
    return out


def _blocks(n_atoms: np.ndarray, n_waves: np.ndarray) -> Iterator[slice]:
    """Runs of crystals whose padded tables of atoms by waves fit a block together."""
    start = atoms = waves = 0
    for i, (n, w) in enumerate(zip(n_atoms.tolist(), n_waves.tolist(), strict=True)):
        more = max(atoms, n), max(waves, w)
        if i > start and (i - start + 1) * more[0] * more[1] > _BLOCK:
            yield slice(start, i)
            start, more = i, (n, w)
        atoms, waves = more
    yield slice(start, len(n_atoms))


def _padded(first: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mask ``[b, max(count)]`` of real entries, and their positions in the flat arrays."""
    column = np.arange(count.max())
    mask = column < count[:, None]
    return mask, np.where(mask, first[:, None] + column, 0)


def _longest_waves(
    waves: Waves, crystals: np.ndarray, volume: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The longest waves of each crystal, and their numbers.

    Args:
        waves: All waves.
        crystals: The crystals looked at ``[b]``.
        volume: A cell of this volume would have `_WAVES` of them, A^3 ``[b]``. Not that of the
            cell itself: in a supercell most waves belong to it alone, and others would be chosen.
    """
    length, ends = waves.length.numpy(), np.cumsum(waves.count.numpy())
    limit = np.cbrt(12 * np.pi**2 * _WAVES / volume)
    chosen = []
    for c, longest in zip(crystals.tolist(), limit.tolist(), strict=True):
        start = ends[c] - int(waves.count[c])
        chosen.append(start + np.flatnonzero(length[start : ends[c]] <= longest))
    count = np.array([len(c) for c in chosen], dtype=np.int64)
    return np.concatenate([*chosen, np.zeros(0, dtype=np.int64)]).astype(np.int64), count


def reduce_graphs(
    flat: FlatGraphs,
    k_max: float | None,
    dtype: torch.dtype = torch.float32,
    tolerance: Tolerance = PREDICTION,
) -> CrystalBatch:
    """The reduced graphs of many crystals as one batch.

    Args:
        flat: Their full graphs.
        k_max: Cutoff of the lattice sums in 1/angstrom, or None without any.
        dtype: Type of coordinates and distances.
        tolerance: What counts as equal.

    Raises:
        StructureError: If a cell has too many waves.
    """
    lattice = torch.from_numpy(flat.lattice)
    waves = None if k_max is None else half_space_waves(lattice, k_max)
    partition = equitable_partition(flat, waves, tolerance.atoms)
    return reduced_batch(flat, partition, waves, k_max, dtype, tolerance.lengths)


def full_batch(
    flat: FlatGraphs, k_max: float | None, dtype: torch.dtype = torch.float32
) -> CrystalBatch:
    """The full graphs of many crystals as one batch (arguments as of `reduce_graphs`)."""

    def real(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(dtype)

    lattice = torch.from_numpy(flat.lattice)
    return CrystalBatch(
        z=torch.from_numpy(flat.numbers),
        crystal=torch.from_numpy(flat.crystal),
        centre=torch.from_numpy(flat.centre),
        neighbour=torch.from_numpy(flat.neighbour),
        distance=real(flat.distance),
        atom_weight=torch.ones(len(flat.numbers), dtype=dtype),
        edge_count=torch.ones(len(flat.centre), dtype=dtype),
        n_crystals=len(flat.n_atoms),
        frac_coords=real(flat.frac_coords),
        lattice=real(flat.lattice),
        waves=None if k_max is None else half_space_waves(lattice, k_max).to(dtype),
        k_max=k_max,
    )


def reduced_batch(
    flat: FlatGraphs,
    partition: Partition,
    waves: Waves | None,
    k_max: float | None,
    dtype: torch.dtype,
    merge: float = PREDICTION.lengths,
) -> CrystalBatch:
    """One node a class, equal edges counted."""
    classes, first = partition
    kept = np.zeros(len(classes), dtype=bool)
    kept[first] = True
    keep = kept[flat.centre]
    centre, neighbour = classes[flat.centre[keep]], classes[flat.neighbour[keep]]
    distance = flat.distance[keep]
    order = np.lexsort((distance, neighbour, centre))
    centre, neighbour, distance = centre[order], neighbour[order], distance[order]
    cut = (np.diff(centre) != 0) | (np.diff(neighbour) != 0) | (np.diff(distance) > merge)
    at = np.concatenate(([0], np.flatnonzero(cut) + 1))
    count = np.diff(np.append(at, len(centre)))
    by_class = np.argsort(classes, kind="stable")

    def real(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(dtype)

    return CrystalBatch(
        z=torch.from_numpy(flat.numbers[first]),
        crystal=torch.from_numpy(flat.crystal[first]),
        centre=torch.from_numpy(centre[at]),
        neighbour=torch.from_numpy(neighbour[at]),
        distance=real(np.add.reduceat(distance, at) / count),
        atom_weight=real(np.bincount(classes)),
        edge_count=real(count),
        n_crystals=len(flat.n_atoms),
        frac_coords=real(flat.frac_coords[first]),
        lattice=real(flat.lattice),
        member=torch.from_numpy(classes[by_class]),
        member_coords=real(flat.frac_coords[by_class]),
        waves=None if waves is None else waves.to(dtype),
        k_max=k_max,
    )
