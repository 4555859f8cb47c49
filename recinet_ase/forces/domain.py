"""Where a force model's training cells were, and what of a crystal lies outside."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.elements import symbols

if TYPE_CHECKING:
    from recinet_ase.forces.batch import ForceGraph

_ROOM = 0.97  # of the shortest distance, and likewise beyond volumes


class DomainWarning(UserWarning):
    """A crystal is unlike all that a force model was trained on."""


@dataclass(frozen=True)
class ForceDomain:
    """Extent of the training cells.

    Attributes:
        shortest: Shortest distance of each pair of elements in angstrom, by ``"Cl-Na"``.
        volumes: Volume of an atom of each element by least squares, angstrom^3 by symbol.
        volume_range: Smallest and largest volume of a cell, in units of the sum of these.
    """

    shortest: dict[str, float]
    volumes: dict[str, float]
    volume_range: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ForceDomain:
        """From a dictionary as `to_dict` gives it."""
        low, high = data["volume_range"]
        return cls(dict(data["shortest"]), dict(data["volumes"]), (float(low), float(high)))

    def notes(self, graph: ForceGraph) -> dict[str, str]:
        """What of a crystal lies outside: a sentence for each kind of reason.

        Pairs of elements that never met within the cutoff are one kind, distances of each pair
        another, and the volume.
        """
        names = symbols()
        found: dict[str, str] = {}
        centre, other = graph.edge_index
        za, zb = (graph.numbers[i] for i in (centre, other))
        ends = graph.positions[other] + graph.shift
        distance = np.linalg.norm(ends - graph.positions[centre], axis=1)
        for pair in np.unique(np.minimum(za, zb) * 256 + np.maximum(za, zb)).tolist():
            a, b = divmod(pair, 256)
            name = pair_name(a, b)
            least = float(distance[(np.minimum(za, zb) == a) & (np.maximum(za, zb) == b)].min())
            if name not in self.shortest:
                found[name] = f"{names[a]} and {names[b]} are neighbours, as nowhere in its data"
            elif least < _ROOM * self.shortest[name]:
                found[name] = (
                    f"{name} at {least:.2f} A is shorter than all in its data "
                    f"({self.shortest[name]:.2f} A)"
                )
        usual = sum(self.volumes.get(names[z], 0.0) for z in graph.numbers.tolist())
        volume = abs(np.linalg.det(graph.lattice))
        low, high = self.volume_range
        if not _ROOM * low < volume / usual < high / _ROOM:
            side = "smaller" if volume / usual < low else "larger"
            found["volume"] = (
                f"{volume / len(graph.numbers):.1f} A^3 an atom is {side} than all in its data "
                f"({volume / usual:.2f} of what is usual for these elements, {low:.2f} to "
                f"{high:.2f} there)"
            )
        return found


def pair_name(a: int, b: int) -> str:
    """``"Cl-Na"`` for two atomic numbers in any order."""
    return "-".join(sorted((symbols()[a], symbols()[b])))
