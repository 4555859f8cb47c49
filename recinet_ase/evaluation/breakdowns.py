"""Where the error lies: by element, chemistry, size of the cell and true value."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recinet_ase.evaluation.table import PredictionTable

ANIONS = {
    "O": "oxides",
    "F": "fluorides",
    "Cl": "chlorides",
    "Br": "bromides",
    "I": "iodides",
    "S": "sulfides",
    "Se": "selenides",
    "Te": "tellurides",
    "N": "nitrides",
}
"""Chemistries by the element that decides them; the first that a crystal contains counts."""

OTHER = "other (intermetallics, elements, ...)"
SIZES = (1, 2, 3, 5, 9, 17, 33, 65)
"""Smallest number of atoms in each group of cells."""


@dataclass(frozen=True)
class Group:
    """Errors of one group of crystals.

    Attributes:
        group: What the crystals have in common.
        n: Number of crystals.
        mae: Mean absolute error in the property's unit.
        mean_error: Mean of prediction minus target.
        share: Share of the sum of all absolute errors that falls on them.
    """

    group: str
    n: int
    mae: float
    mean_error: float
    share: float


def _group(label: str, table: PredictionTable, chosen: npt.NDArray[np.bool_]) -> Group:
    """Errors of some of the crystals, and their share of the whole error."""
    error = table.absolute_errors
    signed = (table.predictions - table.targets)[chosen]
    total = float(error.sum())
    own = float(error[chosen].sum())
    return Group(
        label,
        int(chosen.sum()),
        own / int(chosen.sum()),
        float(signed.mean()),
        own / total if total else 0.0,
    )


def _groups(
    table: PredictionTable, named: Iterable[tuple[str, npt.NDArray[np.bool_]]]
) -> list[Group]:
    return [_group(label, table, chosen) for label, chosen in named if chosen.any()]


def by_element(table: PredictionTable) -> list[Group]:
    """Crystals that contain each element (so a crystal counts once for each of its elements)."""
    from recinet_ase.elements import symbols

    order = {symbol: z for z, symbol in enumerate(symbols())}
    rows = table.scored()
    members: dict[str, list[int]] = {}
    for i, present in enumerate(rows.elements):
        for symbol in present:
            members.setdefault(symbol, []).append(i)
    named = []
    for symbol in sorted(members, key=lambda s: order.get(s, len(order))):
        chosen = np.zeros(len(rows), dtype=bool)
        chosen[members[symbol]] = True
        named.append((symbol, chosen))
    return _groups(rows, named)


def by_chemistry(table: PredictionTable) -> list[Group]:
    """Oxides, halides, chalcogenides, nitrides and the rest: each crystal in one group."""
    rows = table.scored()
    rows = rows.select(np.array([bool(present) for present in rows.elements], dtype=bool))
    kinds = np.array(
        [
            next((label for symbol, label in ANIONS.items() if symbol in present), OTHER)
            for present in rows.elements
        ]
    )
    return _groups(rows, ((label, kinds == label) for label in (*ANIONS.values(), OTHER)))


def by_size(table: PredictionTable) -> list[Group]:
    """Number of atoms in the cell as given."""
    rows = table.scored()
    named = []
    for low, following in zip(SIZES, (*SIZES[1:], None), strict=True):
        chosen = rows.n_atoms >= low
        if following is None:
            label = f"{low} or more"
        else:
            chosen &= rows.n_atoms < following
            label = str(low) if following == low + 1 else f"{low} to {following - 1}"
        named.append((label, chosen))
    return _groups(rows, named)


def by_value(table: PredictionTable, bins: int = 5) -> list[Group]:
    """True values in quantile bins of about equal numbers.

    A single value that fills a bin or more (the gap 0 of metals) takes one bin for itself,
    and the others divide the rest.
    """
    rows = table.scored()
    if not len(rows):
        return []
    values, counts = np.unique(rows.targets, return_counts=True)
    named: list[tuple[str, npt.NDArray[np.bool_]]] = []
    rest = np.ones(len(rows), dtype=bool)
    if len(values) > 1:
        for value in values[counts >= len(rows) / bins]:
            alone = rows.targets == value
            named.append((f"exactly {value:.3g}", alone))
            rest &= ~alone
    if rest.any():
        quantiles = np.linspace(0, 1, max(1, bins - len(named)) + 1)
        edges = np.unique(np.quantile(rows.targets[rest], quantiles))
        if len(edges) == 1:
            named.append((f"{edges[0]:.3g}", rest))
        for low, high in pairwise(edges):
            below = rows.targets <= high if high == edges[-1] else rows.targets < high
            named.append((f"{low:.3g} to {high:.3g}", rest & (rows.targets >= low) & below))
    return _groups(rows, named)


def write_groups(groups: Sequence[Group], path: Path) -> None:
    """Write ``group,n,mae,mean_error,share`` as csv."""
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [f.name for f in fields(Group)], lineterminator="\n")
        writer.writeheader()
        for group in groups:
            writer.writerow(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(group).items()}
            )


def markdown_table(groups: Sequence[Group], heading: str, unit: str) -> list[str]:
    """Groups as the lines of a markdown table."""
    in_unit = f" ({unit})" if unit else ""
    lines = [f"| {heading} | crystals | MAE{in_unit} | share of the error |", "|---|---|---|---|"]
    lines += [f"| {g.group} | {g.n} | {g.mae:.3g} | {g.share:.0%} |" for g in groups]
    return lines
