"""The local block's attention: how far its gates open, by element and by distance.

The coefficient of eq. 23, ``beta = sigmoid(norm(MLP(z)))``, is one number a channel; its mean
over the channels is the *gate* of an edge. What arrives at the centre is gate times message
(eq. 24); the Euclidean norm of that product is the *message* weight of an edge.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from recinet_ase.elements import MAX_Z
from recinet_ase.graph.batch import CrystalBatch

GATE, MESSAGE = "gate", "message"
QUANTITIES = (GATE, MESSAGE)

DISTANCE_STEP = 0.25
"""Width of the distance bins in angstrom."""

_BINS = 48  # up to 12 angstrom; longer edges fall into the last bin

Array = npt.NDArray[np.float64]


class GateTally:
    """Weighted sums of the edge weights of every local block.

    An edge counts with its multiplicity divided by the crystal's number of atoms: every crystal
    has the same say, and a supercell none more.

    Args:
        blocks: Number of local blocks.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        n = MAX_Z + 1
        self._pair_weight = torch.zeros(n * n, dtype=torch.float64)
        self._pair = {q: torch.zeros(blocks, n * n, dtype=torch.float64) for q in QUANTITIES}
        self._bin_weight = torch.zeros(_BINS, dtype=torch.float64)
        self._bin = {q: torch.zeros(blocks, _BINS, dtype=torch.float64) for q in QUANTITIES}

    @contextmanager
    def watching(self, local_blocks: nn.ModuleList, batch: CrystalBatch) -> Iterator[None]:
        """Add the edges of a batch while the network runs over it once, in evaluation mode."""
        atoms = batch.atom_weight.new_zeros(batch.n_crystals)
        atoms = atoms.index_add(0, batch.crystal, batch.atom_weight)
        share = (batch.atom_weight / atoms[batch.crystal])[batch.centre] * batch.edge_count
        weight = share.double().cpu()
        pair = (batch.z[batch.centre] * (MAX_Z + 1) + batch.z[batch.neighbour]).cpu()
        place = (batch.distance / DISTANCE_STEP).long().clamp(max=_BINS - 1).cpu()
        self._pair_weight.index_add_(0, pair, weight)
        self._bin_weight.index_add_(0, place, weight)

        def add(quantity: str, block: int, values: torch.Tensor) -> None:
            weighted = values.double().cpu() * weight
            self._pair[quantity][block].index_add_(0, pair, weighted)
            self._bin[quantity][block].index_add_(0, place, weighted)

        handles = []
        for number, block in enumerate(local_blocks):
            gate: dict[str, torch.Tensor] = {}

            def on_gate(
                _: nn.Module, args: Any, opening: torch.Tensor,
                number: int = number, gate: dict[str, torch.Tensor] = gate,
            ) -> None:  # fmt: skip
                gate["now"] = torch.sigmoid(opening)
                add(GATE, number, gate["now"].mean(-1))

            def on_message(
                _: nn.Module, args: Any, message: torch.Tensor,
                number: int = number, gate: dict[str, torch.Tensor] = gate,
            ) -> None:  # fmt: skip
                product = gate.pop("now") * message
                add(MESSAGE, number, torch.linalg.vector_norm(product, dim=-1))

            part: Any = block
            part.fast = False
            handles.append(part.gate_norm.register_forward_hook(on_gate))
            handles.append(part.message.register_forward_hook(on_message))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for part in local_blocks:
                part.fast = True

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        table = self._pair_weight.view(MAX_Z + 1, -1)
        present = (table.sum(0) > 0) | (table.sum(1) > 0)
        return torch.nonzero(present).flatten().tolist()

    def pairs(self, quantity: str) -> Array:
        """Mean by centre and neighbour, ``[L, Z, Z]`` over `elements`; NaN for no such edge."""
        chosen = torch.tensor(self.elements)
        sums = self._pair[quantity].view(self.blocks, MAX_Z + 1, MAX_Z + 1)
        weight = self._pair_weight.view(MAX_Z + 1, MAX_Z + 1)
        mean: Array = (sums / weight)[:, chosen][:, :, chosen].numpy()
        return mean

    def pair_weights(self) -> Array:
        """Edges an atom, summed over crystals, of each pair of `elements` ``[Z, Z]``."""
        chosen = torch.tensor(self.elements)
        weight: Array = self._pair_weight.view(MAX_Z + 1, MAX_Z + 1)[chosen][:, chosen].numpy()
        return weight

    def of_elements(self, quantity: str, role: str) -> Array:
        """Mean over all edges of an element as ``"centre"`` or ``"neighbour"``, ``[L, Z]``."""
        axis = 1 if role == "centre" else 0  # of the pair table, the role that is summed away
        chosen = torch.tensor(self.elements)
        sums = self._pair[quantity].view(self.blocks, MAX_Z + 1, MAX_Z + 1).sum(axis + 1)
        weight = self._pair_weight.view(MAX_Z + 1, MAX_Z + 1).sum(axis)
        mean: Array = (sums / weight)[:, chosen].numpy()
        return mean

    def distances(self) -> Array:
        """Middles of the distance bins that hold edges, angstrom ``[D]``."""
        filled = torch.nonzero(self._bin_weight > 0).flatten().numpy()
        middles: Array = (filled + 0.5) * DISTANCE_STEP
        return middles

    def by_distance(self, quantity: str) -> Array:
        """Mean in the bins of `distances`, ``[L, D]``."""
        filled = self._bin_weight > 0
        mean: Array = (self._bin[quantity][:, filled] / self._bin_weight[filled]).numpy()
        return mean

    def distance_weights(self) -> Array:
        """Edges an atom, summed over crystals, in the bins of `distances` ``[D]``."""
        weight: Array = self._bin_weight[self._bin_weight > 0].numpy()
        return weight
