"""From structures to batches that a network can take: the part of a prediction without weights.

It runs where the structures are read, in the same process or in a worker; the graphs are
plain tensors that can be sent to the process that owns the device. How many crystals go
through the network together is decided there, since that depends on its memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from recinet_ase.elements import MAX_Z, symbols
from recinet_ase.errors import InternalError, StructureError, fault_of, reason_of
from recinet_ase.formula import formula_of
from recinet_ase.graph.adapters import to_crystal, unwrapped
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import Crystal, GraphSettings, neighbours_of
from recinet_ase.graph.neighbours import NeighbourList
from recinet_ase.graph.refinement import FlatGraphs, full_batch, reduce_graphs
from recinet_ase.inference.result import Prediction
from recinet_ase.uncertainty.descriptors import GEOMETRY, composition_of, geometry_of

MAXIMUM_VOLUME = 300.0
"""Cell volume per atom in angstrom^3 above which no prediction is given: 99.9 % of the
training crystals are denser, and a molecule or slab in vacuum is sparser."""

WINDOW = 512
"""Structures looked at together, to put like sizes into one batch."""


@dataclass(frozen=True)
class PreparedBatch:
    """Crystals that go through the network together.

    Attributes:
        places: Their positions in the window.
        graphs: Their graphs under each neighbour rule.
    """

    places: list[int]
    graphs: dict[GraphSettings, CrystalBatch]

    def __len__(self) -> int:
        return len(self.places)

    @classmethod
    def join(cls, batches: Sequence[PreparedBatch]) -> PreparedBatch:
        """Several as one."""
        places = [i for batch in batches for i in batch.places]
        keys = batches[0].graphs
        return cls(places, {k: CrystalBatch.join([b.graphs[k] for b in batches]) for k in keys})

    def part(self, chosen: slice) -> PreparedBatch:
        """Some of the crystals."""
        return self._chosen(torch.arange(len(self.places))[chosen])

    def divided(self, crystals: float, edges: float) -> Iterator[PreparedBatch]:
        """Batches of crystals of like size.

        Args:
            crystals: Most crystals in a batch.
            edges: Most edges in a batch (a single crystal may have more).
        """
        size = next(iter(self.graphs.values())).edges_of_crystals()
        if len(self) <= crystals and int(size.sum()) <= edges:
            yield self
            return
        order = torch.argsort(size, stable=True)
        start, total = 0, 0
        for stop, n in enumerate(size[order].tolist()):
            if stop > start and (total + n > edges or stop - start >= crystals):
                yield self._chosen(order[start:stop])
                start, total = stop, 0
            total += n
        yield self._chosen(order[start:])

    def _chosen(self, index: torch.Tensor) -> PreparedBatch:
        return PreparedBatch(
            [self.places[i] for i in index.tolist()],
            {key: g.select(index) for key, g in self.graphs.items()},
        )


@dataclass(frozen=True)
class PreparedWindow:
    """What `Preparation` makes of a list of structures.

    Attributes:
        results: For each structure its formula and size, and the error of one that has no
            graph.
        batches: The graphs of all others: one batch, or several where one could not be made.
        composition: Share of each element, by atomic number, zero where there is no graph
            ``[n, 104]``.
        geometry: Geometric descriptors under each neighbour rule, where intervals are wanted
            ``[n, len(GEOMETRY)]``.
    """

    results: list[Prediction] = field(default_factory=list)
    batches: list[PreparedBatch] = field(default_factory=list)
    composition: torch.Tensor = field(default_factory=lambda: torch.zeros(0, MAX_Z + 1))
    geometry: dict[GraphSettings, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Preparation:
    """How structures become graphs, for one set of models.

    Attributes:
        settings: Neighbour rules, one batch each.
        k_max: Largest cutoff of the lattice sums in 1/angstrom, or None without any.
        dtype: Type of coordinates and distances.
        reduce: Take equal atoms together (see `recinet_ase.graph.refinement`): the same
            answer for a quarter of the work.
        describe: Compute the geometric descriptors that intervals are judged by.
    """

    settings: tuple[GraphSettings, ...] = (GraphSettings(),)
    k_max: float | None = None
    dtype: torch.dtype = torch.float32
    reduce: bool = True
    describe: bool = False

    def __call__(self, structures: Iterable[Any]) -> PreparedWindow:
        """Prepare structures; a bad one, or an exception in its place, becomes an error."""
        results: list[Prediction] = []
        ready: list[_Item] = []
        for i, structure in enumerate(structures):
            if isinstance(structure, Exception):
                fault = structure.trace if isinstance(structure, InternalError) else ""
                results.append(Prediction(error=reason_of(structure), fault=fault))
                continue
            formula, n_atoms = "", 0
            try:
                structure = unwrapped(structure)
                formula, n_atoms = described(structure)
                crystal = to_crystal(structure)
                check_density(crystal)
                ready.append((i, crystal, [neighbours_of(crystal, s) for s in self.settings]))
            except Exception as error:  # one bad structure must never stop a screening
                result = Prediction(formula=formula, n_atoms=n_atoms)
                results.append(failed(result, error))
            else:
                results.append(Prediction(formula=formula, n_atoms=n_atoms))
        n = len(results)
        composition = torch.zeros(n, MAX_Z + 1, dtype=torch.float64)
        geometry: dict[GraphSettings, torch.Tensor] = {}
        batches = []
        for places, graphs in self._graphs(ready, results):
            batches.append(PreparedBatch(places, graphs))
            composition[places] = composition_of(next(iter(graphs.values())))
            for settings, batch in graphs.items() if self.describe else ():
                rows = composition.new_zeros(n, len(GEOMETRY))
                geometry.setdefault(settings, rows)[places] = geometry_of(batch)
        return PreparedWindow(results, batches, composition, geometry)

    def _graphs(
        self, items: list[_Item], results: list[Prediction]
    ) -> Iterator[tuple[list[int], dict[GraphSettings, CrystalBatch]]]:
        """All graphs in one batch; where that fails, in halves, down to the one at fault."""
        if not items:
            return
        places, crystals = [i for i, _, _ in items], [c for _, c, _ in items]
        try:
            graphs = {}
            for k, settings in enumerate(self.settings):
                flat = FlatGraphs.join(crystals, [found[k] for _, _, found in items])
                make = reduce_graphs if self.reduce else full_batch
                graphs[settings] = make(flat, self.k_max, self.dtype)
        except Exception as error:
            if len(items) == 1:
                results[places[0]] = failed(results[places[0]], error)
                return
            half = len(items) // 2
            yield from self._graphs(items[:half], results)
            yield from self._graphs(items[half:], results)
        else:
            yield places, graphs


_Item = tuple[int, Crystal, list[NeighbourList]]
"""Position in the window, the crystal, and its neighbours under each rule."""


def check_density(crystal: Crystal) -> None:
    """Refuse cells that are mostly vacuum.

    Raises:
        StructureError: If the volume per atom is above `MAXIMUM_VOLUME`.
    """
    volume = crystal.volume / len(crystal)
    if volume > MAXIMUM_VOLUME:
        raise StructureError(
            f"{volume:.0f} A^3 per atom is sparser than the crystals the models were trained on "
            f"(limit {MAXIMUM_VOLUME:.0f}); is it a molecule or a slab in vacuum?"
        )


def failed(result: Prediction, error: Exception) -> Prediction:
    """The result of a structure that this error was met with."""
    fault = fault_of(error)
    reason = f"internal error: {reason_of(error)}" if fault else reason_of(error)
    return replace(result, error=reason, fault=fault)


def described(structure: Any) -> tuple[str, int]:
    """`describe`, or nothing of a structure that has not what its kind has."""
    try:
        return describe(structure)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        return "", 0


def describe(structure: Any) -> tuple[str, int]:
    """Reduced formula (as pymatgen writes it) and number of atoms of any accepted structure."""
    if isinstance(structure, dict):
        atoms = structure.get("atoms", structure)
        names = atoms.get("elements") or [
            species["element"] for site in atoms.get("sites", []) for species in site["species"]
        ]
        return formula_of(names), len(names)
    if hasattr(structure, "get_chemical_symbols"):
        names = structure.get_chemical_symbols()
        return formula_of(names), len(names)
    if hasattr(structure, "composition"):
        return structure.composition.reduced_formula, len(structure)
    if hasattr(structure, "numbers"):
        return formula_of(symbols()[int(z)] for z in structure.numbers), len(structure)
    return "", 0
