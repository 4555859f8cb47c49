"""Where a force model's training cells were, and what of a crystal lies outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recinet_ase.elements import MAX_Z, symbols

if TYPE_CHECKING:
    from recinet_ase.forces.batch import ForceGraph
    from recinet_ase.forces.labels import LabelledCells
    from recinet_ase.forces.model import ForceModel

_CELLS = 10_000  # that are looked at
_CELLS_A_BATCH = 32
_ROOM = 0.97  # of the shortest distance, and likewise beyond volumes
_QUANTILE, _BEYOND = 0.999, 1.5  # atoms farther than so many times this quantile are new
_FLOOR = 0.3  # of the deviation of atoms from their element's mean, for elements with few of them


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


@torch.no_grad()
def measure_domain(model: ForceModel, cells: LabelledCells, train: Sequence[int]) -> None:
    """Put the extent of the training cells into a model.

    Args:
        model: The model; its configuration and its table of latent features are replaced.
        cells: The data.
        train: Positions of the training cells; of many a sample is looked at.
    """
    from dataclasses import replace

    chosen = np.asarray(train)
    if len(chosen) > _CELLS:
        chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:_CELLS])
    some = cells.select(chosen)
    counts = np.zeros((len(some), MAX_Z + 1))
    np.add.at(counts, (np.repeat(np.arange(len(some)), some.n_atoms), some.numbers), 1)
    present = np.flatnonzero(counts.any(0))
    volume = np.abs(np.linalg.det(some.lattice))
    each = np.linalg.lstsq(counts[:, present], volume, rcond=None)[0].clip(min=1.0)
    ratio = volume / (counts[:, present] @ each)
    shortest = np.full((MAX_Z + 1, MAX_Z + 1), np.inf)
    latent = []
    for start in range(0, len(some), _CELLS_A_BATCH):
        part = list(range(start, min(start + _CELLS_A_BATCH, len(some))))
        batch, _ = some.batch(part, model.config.network)
        result = model(batch)
        latent.append(result.latent.cpu().numpy())
        ends = batch.positions[batch.neighbour] + batch.shift
        distance = (ends - batch.positions[:, None]).norm(dim=-1).numpy()
        z = batch.z.numpy()
        np.minimum.at(shortest, (z[:, None], z[batch.neighbour.numpy()]), distance)
    shortest = np.minimum(shortest, shortest.T)
    pairs = np.argwhere(np.triu(shortest < model.config.network.cutoff)).tolist()
    domain = ForceDomain(
        {pair_name(a, b): round(float(shortest[a, b]), 3) for a, b in pairs},
        {symbols()[z]: round(float(v), 2) for z, v in zip(present, each, strict=True)},
        (round(float(ratio.min()), 3), round(float(ratio.max()), 3)),
    )
    model.config = replace(model.config, domain=domain)
    features, numbers = np.concatenate(latent), some.numbers
    within = features.copy()
    for number in present.tolist():
        within[numbers == number] -= features[numbers == number].mean(0)
    spread = within.std(0)
    for number in present.tolist():
        own = features[numbers == number]
        mean, deviation = own.mean(0), np.maximum(own.std(0), _FLOOR * spread) + 1e-6
        away = np.sqrt((((own - mean) / deviation) ** 2).mean(1))
        limit = _BEYOND * max(1.0, float(np.quantile(away, _QUANTILE)))
        model.latent_mean[number] = torch.from_numpy(mean)
        model.latent_scale[number] = torch.from_numpy(1 / (limit * deviation))
