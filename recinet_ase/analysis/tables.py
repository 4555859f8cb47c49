"""The numbers of an analysis as tables: what is written as csv and what plots are drawn from."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recinet_ase.analysis.bonding import BONDING, RULES, UNDEFINED, Composition
from recinet_ase.analysis.filters import ModelFilters
from recinet_ase.analysis.gates import QUANTITIES, GateTally
from recinet_ase.analysis.observe import LOCAL, PARTS, Observation
from recinet_ase.analysis.sample import FAMILIES
from recinet_ase.analysis.spectrum import RANK_SHARES, Spectrum, cumulative_energy
from recinet_ase.elements import symbols

QUARTILES = {"lower quartile": 25, "median": 50, "upper quartile": 75}
SHOWN_CHANNELS = 6
"""Single channels among the curves: those with the largest value anywhere."""

UNTRAINED = ("lower quartile before training", "upper quartile before training")

ALL = "all"

_NORMAL_QUARTILE = 0.6744897501960817


@dataclass(frozen=True)
class Table:
    """A table with named columns.

    Attributes:
        name: File name without suffix.
        columns: Names of the columns, with units.
        rows: The rows.
    """

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def select(self, **where: Any) -> dict[str, np.ndarray]:
        """Columns as arrays, of the rows in which the named columns have the given values."""
        places = {self.columns.index(key): value for key, value in where.items()}
        chosen = [row for row in self.rows if all(row[i] == v for i, v in places.items())]
        return {name: np.array([r[i] for r in chosen]) for i, name in enumerate(self.columns)}

    def values(self, column: str) -> list[Any]:
        """The different values of a column, in order of appearance."""
        at = self.columns.index(column)
        return list(dict.fromkeys(row[at] for row in self.rows))

    def write(self, folder: Path) -> Path:
        """Write ``name.csv`` into a folder; numbers with seven digits, NaN as empty."""
        path = folder / f"{self.name}.csv"
        with path.open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows([_cell(value) for value in row] for row in self.rows)
        return path


def _cell(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.7g}"
    return value


def curve_table(filters: ModelFilters) -> Table:
    """Median and quartiles over the channels of each block's filter, and some channels.

    The quartiles of filters before training (independent normal weights of variance 1/R) stand
    beside them: the shape of the radial functions alone.
    """
    grid, rows = filters.grid(), []
    before = _NORMAL_QUARTILE * filters.spread_before_training(grid)
    for block in filters.blocks:
        values = filters.at(block, grid)
        curves = {key: np.percentile(values, q, axis=1) for key, q in QUARTILES.items()}
        for channel in np.argsort(-np.abs(values).max(0))[:SHOWN_CHANNELS]:
            curves[f"channel {channel + 1}"] = values[:, channel]
        curves |= dict(zip(UNTRAINED, (-before, before), strict=True))
        for key, curve in curves.items():
            rows += [(block.block, key, *p) for p in zip(grid, curve, strict=True)]
    return Table("filter_curves", ("block", "curve", "wave number (1/A)", "filter"), rows)


def matrix_table(filters: ModelFilters) -> Table:
    """Every channel of each block's filter, ordered by where the filter is largest."""
    grid, rows = filters.grid(), []
    for block in filters.blocks:
        values = filters.at(block, grid)
        # Signed extreme: negative ones first, each by its wave number.
        peak = np.abs(values).argmax(0)
        extreme = values[peak, np.arange(values.shape[1])]
        order = np.lexsort((peak, extreme > 0))
        for place, channel in enumerate(order, 1):
            rows += [
                (block.block, place, int(channel) + 1, *p)
                for p in zip(grid, values[:, channel], strict=True)
            ]
    columns = ("block", "place", "channel", "wave number (1/A)", "filter")
    return Table("filter_matrix", columns, rows)


def singular_table(spectra: Sequence[Spectrum]) -> Table:
    """Singular values of each matrix and the energy that the first k of them hold."""
    rows = [
        (s.block, s.matrix, k, value, share)
        for s in spectra
        for k, (value, share) in enumerate(
            zip(s.singular, cumulative_energy(s.singular), strict=True), 1
        )
    ]
    columns = ("block", "matrix", "component", "singular value", "cumulative energy")
    return Table("singular_values", columns, rows)


def rank_table(spectra: Sequence[Spectrum]) -> Table:
    """Effective ranks of each matrix, beside those of random weights."""
    names = [f"rank {share:.0%}" for share in RANK_SHARES]
    columns = ("block", "matrix", "rows", "columns", *names, *(f"{n}, random" for n in names))
    rows = [(s.block, s.matrix, *s.shape, *s.ranks, *s.random_ranks) for s in spectra]
    return Table("effective_rank", columns, rows)


def _groups(observation: Observation) -> list[tuple[str, str, np.ndarray]]:
    """Kind, name and members of every group that has any, all crystals first."""
    n = len(observation.ids)
    found = [(ALL, ALL, np.ones(n, dtype=bool))]
    for kind, order in (("crystal family", FAMILIES), ("bonding", BONDING)):
        of = np.array(observation.groups[kind])
        found += [(kind, name, of == name) for name in order if (of == name).any()]
    return found


def ratio_table(observation: Observation) -> Table:
    """Quartiles over crystals of the reciprocal update's size beside the local one's."""
    rows = []
    for part in PARTS:
        if part not in observation.sizes:
            continue
        ratio = observation.ratio(part)
        for kind, name, members in _groups(observation):
            for block, column in enumerate(ratio[members].T, 1):
                known = column[np.isfinite(column)]
                quartiles = np.percentile(known, (25, 50, 75)) if len(known) else [np.nan] * 3
                rows.append((kind, name, int(members.sum()), part, block, *quartiles))
    columns = ("division", "group", "crystals", "part", "block", *QUARTILES)
    return Table("update_ratio", columns, rows)


def change_table(observation: Observation, properties: Mapping[str, str]) -> Table:
    """How far predictions move when parts of the reciprocal block are switched off.

    Args:
        observation: What was seen.
        properties: Unit of each property, in the model's order.
    """
    rows = []
    for at, (prop, unit) in enumerate(properties.items()):
        for part, values in observation.without.items():
            change = values[:, at] - observation.predictions[:, at]
            for kind, name, members in _groups(observation):
                own = change[members]
                rows.append(
                    (prop, unit, part, kind, name, len(own), float(np.abs(own).mean()),
                     float(np.median(np.abs(own))), float(own.mean()),
                     float(np.abs(observation.predictions[members, at]).mean()))
                )  # fmt: skip
    columns = (
        "property", "unit", "without", "division", "group", "crystals", "mean absolute change",
        "median absolute change", "mean change", "mean absolute prediction",
    )  # fmt: skip
    return Table("switched_off", columns, rows)


def crystal_table(observation: Observation, properties: Sequence[str]) -> Table:
    """Every crystal: groups, sizes of the updates, predictions with and without the parts."""
    blocks = range(1, observation.sizes[LOCAL].shape[1] + 1)
    columns: list[str] = ["id", *observation.groups]
    data: list[Sequence[Any]] = [observation.ids, *observation.groups.values()]
    for part, sizes in observation.sizes.items():
        columns += [f"{part} {block}" for block in blocks]
        data += list(sizes.T)
    for name, values in (("", observation.predictions), *observation.without.items()):
        columns += [f"{prop} without {name}" if name else prop for prop in properties]
        data += list(values.T)
    return Table("crystals", tuple(columns), list(zip(*data, strict=True)))


def pair_table(gates: GateTally) -> Table:
    """Mean gate and message weight of each pair of elements, in each block."""
    names = [symbols()[z] for z in gates.elements]
    weight, means = gates.pair_weights(), [gates.pairs(q) for q in QUANTITIES]
    rows = [
        (block + 1, a, b, weight[i, j], *(mean[block, i, j] for mean in means))
        for block in range(gates.blocks)
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if weight[i, j] > 0
    ]
    columns = ("block", "centre", "neighbour", "edges an atom, summed over crystals", *QUANTITIES)
    return Table("gates_pairs", columns, rows)


def element_table(gates: GateTally) -> Table:
    """Mean gate and message weight of each element as centre and as neighbour."""
    names = [symbols()[z] for z in gates.elements]
    rows = []
    for role in ("centre", "neighbour"):
        means = [gates.of_elements(quantity, role) for quantity in QUANTITIES]
        rows += [
            (block + 1, role, name, *(float(mean[block, i]) for mean in means))
            for block in range(gates.blocks)
            for i, name in enumerate(names)
        ]
    return Table("gates_elements", ("block", "role", "element", *QUANTITIES), rows)


def distance_table(gates: GateTally) -> Table:
    """Mean gate and message weight by edge length, in each block."""
    means = [gates.by_distance(quantity) for quantity in QUANTITIES]
    weights = gates.distance_weights()
    rows = [
        (block + 1, distance, weights[i], *(mean[block, i] for mean in means))
        for block in range(gates.blocks)
        for i, distance in enumerate(gates.distances())
    ]
    columns = ("block", "distance (A)", "edges an atom, summed over crystals", *QUANTITIES)
    return Table("gates_distance", columns, rows)


def expert_table(properties: Sequence[str], frequencies: np.ndarray, weights: np.ndarray) -> Table:
    """Share of the selections, and of the gate weight, by property and expert."""
    rows = [
        (prop, expert + 1, float(frequencies[i, expert]), float(weights[i, expert]))
        for i, prop in enumerate(properties)
        for expert in range(frequencies.shape[1])
    ]
    return Table("experts", ("property", "expert", "selection frequency", "gate weight"), rows)


def similarity_table(properties: Sequence[str], matrix: np.ndarray) -> Table:
    """A property-by-property matrix, one row an entry."""
    rows = [
        (a, b, float(matrix[i, j]))
        for i, a in enumerate(properties)
        for j, b in enumerate(properties)
    ]
    return Table("task_similarity", ("property", "other property", "similarity"), rows)


def composition_table(composition: Composition) -> Table:
    """Table 15: crystals of each class, with the paper's counts where it has some."""
    paper = composition.paper
    whole = sum(paper.values())
    rows: list[tuple[Any, ...]] = []
    for name in BONDING:
        share = float("nan") if name == UNDEFINED else composition.share(name)
        theirs = (paper[name], paper[name] / whole) if name in paper else ("", "")
        rows.append((name, RULES[name], composition.counts[name], share, *theirs))
    columns = ("class", "rule", "crystals", "share", "paper's crystals", "paper's share")
    return Table("composition", columns, rows)
