"""Batches: the graphs of many crystals in one set of tensors, what the network consumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

from recinet_ase.graph.segments import first_rows
from recinet_ase.graph.upload import upload
from recinet_ase.graph.wave_sums import Members, Sizes, pair_kernels
from recinet_ase.graph.waves import WaveBasis, Waves, half_space_waves

if TYPE_CHECKING:
    from torch_geometric.data import Data


@dataclass(frozen=True)
class LatticeTerms:
    """What the lattice sums of a batch are made of (B crystals, W waves, R radial functions).

    Attributes:
        waves: Half-space waves.
        radial: Radial functions at each wave ``[W, R]``.
        sizes: Nodes, atoms and waves of each crystal.
        members: The atoms behind the nodes, None where every node is an atom.
    """

    waves: Waves
    radial: torch.Tensor
    sizes: Sizes
    members: Members | None


@dataclass(frozen=True)
class CrystalBatch:
    """Graphs of many crystals in one set of tensors.

    Attributes:
        z: Atomic numbers of the nodes (atoms, or classes of equal atoms), ``[N]``.
        crystal: Crystal that each node belongs to, ``[N]``, ascending.
        centre: Receiving atom of each edge, ``[E]``, ascending.
        neighbour: Neighbouring atom of each edge, ``[E]``.
        distance: Edge lengths in angstrom, ``[E]``.
        atom_weight: Multiplicity of each atom, ``[N]``.
        edge_count: Multiplicity of each edge, ``[E]``.
        n_crystals: Number of crystals, B.
        frac_coords: Fractional coordinates ``[N, 3]`` (None where kernels are given); of a
            class, those of one of its atoms.
        lattice: Lattice vectors as rows ``[B, 3, 3]`` (None where kernels are given).
        pair_centre, pair_neighbour: Atom pairs of the reciprocal kernel, by centre, ``[P]``, or
            None.
        pair_kernel: Reciprocal kernel of each pair, ``[P, R]``, or None.
        member: Node that each atom of the crystals belongs to, ``[M]``, ascending, or None where
            every node is an atom.
        member_coords: Fractional coordinates of all atoms, ``[M, 3]``, or None.
        waves: Half-space waves up to ``k_max``, if they are already known.
        k_max: Cutoff of these waves in 1/angstrom.
    """

    z: torch.Tensor
    crystal: torch.Tensor
    centre: torch.Tensor
    neighbour: torch.Tensor
    distance: torch.Tensor
    atom_weight: torch.Tensor
    edge_count: torch.Tensor
    n_crystals: int
    frac_coords: torch.Tensor | None = None
    lattice: torch.Tensor | None = None
    pair_centre: torch.Tensor | None = None
    pair_neighbour: torch.Tensor | None = None
    pair_kernel: torch.Tensor | None = None
    member: torch.Tensor | None = None
    member_coords: torch.Tensor | None = None
    waves: Waves | None = None
    k_max: float | None = None

    def to(self, device: torch.device | str) -> CrystalBatch:
        """The batch on another device."""
        moved: dict[str, Any] = {
            f.name: value.to(device) if isinstance(value, Waves) else upload(value, device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor | Waves)
        }
        batch = replace(self, **moved)
        if self.pair_kernel is None:
            batch.__dict__["sizes"] = self.sizes  # counted where counting waits for nothing
        return batch

    @classmethod
    def join(cls, batches: Sequence[CrystalBatch]) -> CrystalBatch:
        """Batches without reciprocal kernels, made under the same rule, as one."""
        first = batches[0]
        nodes = list(accumulate((len(b.z) for b in batches), initial=0))
        crystals = list(accumulate((b.n_crystals for b in batches), initial=0))
        shift = {"crystal": crystals, "centre": nodes, "neighbour": nodes, "member": nodes}
        parts: dict[str, Any] = {}
        for f in fields(cls):
            if isinstance(getattr(first, f.name), torch.Tensor):
                own = [getattr(b, f.name) for b in batches]
                if f.name in shift:
                    own = [x + s for x, s in zip(own, shift[f.name], strict=False)]
                parts[f.name] = torch.cat(own)
        if first.waves is not None:
            waves = [b.waves for b in batches if b.waves is not None]
            parts["waves"] = Waves(
                torch.cat([w.index for w in waves]),
                torch.cat([w.crystal + s for w, s in zip(waves, crystals, strict=False)]),
                torch.cat([w.length for w in waves]),
                torch.cat([w.count for w in waves]),
            )
        return replace(first, n_crystals=crystals[-1], **parts)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle, as NumPy's arrays: tensors one by one take most of the time."""
        state = {**self.__dict__, "waves": None}
        if self.waves is not None:
            state["waves"] = {key: value.numpy() for key, value in vars(self.waves).items()}
        arrays = {k: v.numpy() for k, v in state.items() if isinstance(v, torch.Tensor)}
        return {**state, **arrays, "tensors": [*arrays]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` gave."""
        tensors: dict[str, Any] = {}
        for key in state.pop("tensors"):
            tensors[key] = torch.from_numpy(state[key])
        if state["waves"] is not None:
            waves = {key: torch.from_numpy(value) for key, value in state["waves"].items()}
            tensors["waves"] = Waves(**waves)
        self.__dict__.update(state, **tensors)

    @cached_property
    def sizes(self) -> Sizes:
        """Nodes, atoms and known waves of each crystal, on the host."""
        nodes = self._count(self.crystal)
        atoms = nodes if self.member is None else self._count(self.crystal[self.member])
        waves = torch.zeros_like(nodes) if self.waves is None else self.waves.count
        return Sizes(*torch.stack((nodes, atoms, waves)).cpu().numpy())

    def _count(self, crystal: torch.Tensor) -> torch.Tensor:
        """Rows of each crystal ``[B]``, where ``crystal`` is ascending."""
        first = first_rows(crystal, self.n_crystals)
        return torch.cat((first, first.new_tensor([len(crystal)]))).diff()

    @cached_property
    def first_node(self) -> torch.Tensor:
        """First node of each crystal, ``[B]``."""
        return first_rows(self.crystal, self.n_crystals)

    def edges_of_crystals(self) -> torch.Tensor:
        """Number of edges of each crystal, ``[B]``."""
        return torch.bincount(self.crystal[self.centre], minlength=self.n_crystals)

    def select(self, crystals: torch.Tensor) -> CrystalBatch:
        """The crystals at the given positions (int64 ``[b]``), in that order.

        Only batches without reciprocal kernels can be divided.
        """
        if self.pair_kernel is not None or self.lattice is None or self.frac_coords is None:
            raise ValueError("batches with reciprocal kernels cannot be divided")
        nodes, crystal = _rows_of(self.crystal, self.n_crystals, crystals)
        edges, _ = _rows_of(self.crystal[self.centre], self.n_crystals, crystals)
        order = torch.arange(len(nodes), device=nodes.device)
        place = torch.empty_like(self.z).index_copy_(0, nodes, order)
        members: dict[str, Any] = {}
        if self.member is not None and self.member_coords is not None:
            atoms, _ = _rows_of(self.crystal[self.member], self.n_crystals, crystals)
            members["member"] = place[self.member[atoms]]
            members["member_coords"] = self.member_coords[atoms]
        return replace(
            self,
            z=self.z[nodes],
            crystal=crystal,
            centre=place[self.centre[edges]],
            neighbour=place[self.neighbour[edges]],
            distance=self.distance[edges],
            atom_weight=self.atom_weight[nodes],
            edge_count=self.edge_count[edges],
            n_crystals=len(crystals),
            frac_coords=self.frac_coords[nodes],
            lattice=self.lattice[crystals],
            waves=None if self.waves is None else self.waves.select(crystals),
            **members,
        )

    def padded(self, atoms: int, edges: int, pairs: int) -> CrystalBatch:
        """The batch with rows of zero weight added up to multiples of the given sizes.

        The rows belong to the last atom and crystal and count nothing, so that no
        prediction changes. Only batches with reciprocal kernels can be padded.
        """
        if self.pair_kernel is None or self.pair_centre is None or self.pair_neighbour is None:
            raise ValueError("only batches with reciprocal kernels can be padded")
        last = len(self.z) - 1

        def fill(x: torch.Tensor, multiple: int, value: float) -> torch.Tensor:
            short = -len(x) % multiple
            return torch.cat((x, x.new_full((short, *x.shape[1:]), value)))

        return replace(
            self,
            z=fill(self.z, atoms, int(self.z[-1])),
            crystal=fill(self.crystal, atoms, self.n_crystals - 1),
            atom_weight=fill(self.atom_weight, atoms, 0),
            centre=fill(self.centre, edges, last),
            neighbour=fill(self.neighbour, edges, last),
            distance=fill(self.distance, edges, 3.0),
            edge_count=fill(self.edge_count, edges, 0),
            pair_centre=fill(self.pair_centre, pairs, last),
            pair_neighbour=fill(self.pair_neighbour, pairs, last),
            pair_kernel=fill(self.pair_kernel, pairs, 0),
        )

    def lattice_terms(self, basis: WaveBasis) -> LatticeTerms:
        """What the lattice sums of the batch are made of.

        Raises:
            ValueError: If it has kernels in the place of coordinates.
            StructureError: If a cell has too many waves.
        """
        if self.frac_coords is None or self.lattice is None:
            raise ValueError("this batch has reciprocal kernels and no coordinates")
        known = self.waves if self.k_max == basis.k_max else None
        waves = half_space_waves(self.lattice, basis.k_max) if known is None else known
        sizes = self.sizes
        if known is None:
            sizes = sizes._replace(waves=waves.count.cpu().numpy())
        members = None
        if self.member is not None and self.member_coords is not None:
            members = Members(self.member_coords, self.member)
        n_atoms = upload(torch.from_numpy(sizes.atoms), self.lattice.device)
        radial = basis.of_waves(waves, torch.linalg.det(self.lattice).abs() / n_atoms)
        return LatticeTerms(waves, radial, sizes, members)

    def with_kernels(self, basis: WaveBasis) -> CrystalBatch:
        """The batch with the reciprocal kernels of all nodes in the place of coordinates."""
        terms = self.lattice_terms(basis)
        assert self.frac_coords is not None
        i, j, kernel = pair_kernels(
            self.frac_coords, terms.waves, terms.sizes, terms.radial, terms.members
        )
        without: dict[str, Any] = dict.fromkeys(
            ("frac_coords", "lattice", "member", "member_coords", "waves", "k_max")
        )
        return replace(self, pair_centre=i, pair_neighbour=j, pair_kernel=kernel, **without)

    @classmethod
    def from_data(cls, data: Data) -> CrystalBatch:
        """From one `CrystalGraph`, or a PyTorch Geometric ``Batch`` of them."""
        crystal = getattr(data, "batch", None)
        if crystal is None:
            crystal = torch.zeros_like(data.z)
        return cls(
            z=data.z,
            crystal=crystal,
            centre=data.edge_index[0],
            neighbour=data.edge_index[1],
            distance=data.edge_distance,
            atom_weight=data.atom_weight,
            edge_count=data.edge_count,
            n_crystals=len(data.lattice),
            frac_coords=data.frac_coords,
            lattice=data.lattice,
        )


def _rows_of(
    owner: torch.Tensor, n: int, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that belong to the chosen owners, in their order, and the new owner of each row.

    ``owner`` is ascending, with values below ``n``.
    """
    count = torch.bincount(owner, minlength=n)
    first = (torch.cumsum(count, 0) - count)[chosen]
    count = count[chosen]
    new = torch.repeat_interleave(torch.arange(len(chosen), device=owner.device), count)
    start = torch.cumsum(count, 0) - count
    return torch.arange(len(new), device=owner.device) + (first - start)[new], new
