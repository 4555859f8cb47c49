"""From a finished screen to the page: gathers, renders, writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recinet_ase.elements import symbols, table_position
from recinet_ase.errors import ReciNetError
from recinet_ase.models.files import write_atomic
from recinet_ase.screening.output.report.cell import (
    draw_cell,
    find_symmetry,
    flat_cell,
    gradients,
    palette,
    scene,
    svg,
)
from recinet_ase.screening.output.report.charts import axis_label, histogram, scatter
from recinet_ase.screening.output.report.markup import group_symbol
from recinet_ase.screening.output.report.phases import Diagram, diagrams
from recinet_ase.screening.output.report.render import render
from recinet_ase.screening.output.statistics import error_kinds, property_figures
from recinet_ase.screening.selection.columns import LACKS
from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import RowTable, has_interval, property_columns
from recinet_ase.stability.composition import parse_formula
from recinet_ase.stability.derived import DISTANCE
from recinet_ase.stability.hull import Hull
from recinet_ase.stability.phases import Component

SHOWN = 500
"""Rows of the shortlist on the page."""

UNCHOSEN = 100
"""Rows on the page where there is no shortlist."""

DRAWN = 50
"""Rows whose cell is drawn."""

_SYMPREC = 0.01  # A, for the space groups
_ATOMS = 8000  # spheres on the whole page, and atoms of cells to be saved: keeps it small
_CAUTION = "caution, "
_HEAD = 4096  # characters that hold the page's meta elements


@dataclass(frozen=True)
class _Value:
    """A number of the shortlist, with its interval as text and as a picture."""

    number: float | None
    text: str
    ends: str = ""
    low: float = 0.0
    high: float = 0.0
    at: float = 0.0


@dataclass(frozen=True)
class _Crystal:
    """What is known of a structure beyond its row."""

    group: str = ""
    group_number: int = 0
    cell: str = ""
    picture: str = ""
    flat: dict[str, Any] | None = None


def report_identity(path: str | Path) -> str | None:
    """The digest of the screen that a report belongs to, None if nothing says."""
    try:
        with Path(path).open(encoding="utf-8") as handle:
            head = handle.read(_HEAD)
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r'<meta name="recinet-screen" content="([0-9a-f]+)">', head)
    return found[1] if found else None


def write_report(
    path: str | Path,
    table: RowTable,
    indices: np.ndarray | None = None,
    *,
    selection: Selection | None = None,
    title: str = "",
    sources: Sequence[str] = (),
    command: str = "",
    provenance: Sequence[str] = (),
    versions: Mapping[str, str] | None = None,
    seconds: float | None = None,
    identity: str = "",
    created: str = "",
    shown: int = SHOWN,
    drawn: int = DRAWN,
    structures: bool = True,
    hull: Hull | None = None,
) -> None:
    """Write a screen as one html page without any outside part.

    The same arguments give the same bytes. The file appears when it is complete.

    Args:
        path: The page to write.
        table: All rows of the screen.
        indices: The shortlist, in order; all rows, with no shortlist, if None.
        selection: How the shortlist was chosen.
        title: Heading, by default the names of the sources.
        sources: Input files.
        command: The command line.
        provenance: From `provenance_lines`; lines that start with ``caution,`` stand out.
        versions: Name and version of what was used, this package and its main libraries by
            default.
        seconds: How long the screen took; of a resumed one, its last part.
        identity: Digest of the screen, for `report_identity`.
        created: Date and time, as they shall appear.
        shown: Rows of the shortlist on the page; without one, the first `UNCHOSEN` rows at most.
        drawn: Of these, how many have their cell drawn.
        structures: Whether the structures can be read again; without them there are neither
            space groups nor cells.
        hull: What ``ehull`` is measured from, for decompositions and phase diagrams.

    Raises:
        ReciNetError: If the file cannot be written.
    """
    path = Path(path)
    chosen = np.arange(len(table)) if indices is None else np.asarray(indices)
    rows = chosen[: min(shown, UNCHOSEN) if indices is None else shown]
    crystals, scenes, numbers = (
        _crystals(table, rows, drawn)
        if structures and len(rows)
        else ([_Crystal()] * len(rows), [], set())
    )
    cells = _bounded([crystal.flat for crystal in crystals])
    names = property_columns(table.columns, table.units)
    favourites = [key.lstrip("-") for key in selection.pareto] if selection else []
    points = scatter(table, indices, favourites)
    inside = _share_inside(table)
    kinds = error_kinds(table)
    data = {
        "points": points,
        "scenes": scenes,
        "palette": palette(numbers),
        "cells": cells,
        "elements": [
            (symbol, *table_position(z)) for z, symbol in enumerate(symbols()) if z and len(rows)
        ],
    }
    histograms = [
        h
        for name in names
        if (h := histogram(name, table.units.get(name, ""), *_both(table, name, indices)))
    ]
    shown_rows = _rows(table, rows, names, crystals, hull)
    context = {
        "title": title or ", ".join(Path(source).name for source in sources) or "Screening report",
        "table": table,
        "chosen": chosen,
        "selected": indices is not None,
        "steps": selection.explain(table.columns, table.units) if selection else [],
        "figures": property_figures(table),
        "kinds": kinds,
        "failed": sum(kind.count for kind in kinds),
        "inside": inside,
        "histograms": histograms,
        "skewed": any(h.skewed for h in histograms),
        "points": points,
        "gradients": gradients(numbers),
        "columns": [(name, axis_label(name, table.units.get(name, ""))) for name in names],
        "domain": "in_domain" in table.columns,
        "rows": shown_rows,
        "decomposed": any(row["mixture"] for row in shown_rows),
        "diagrams": _diagrams(shown_rows, hull) if indices is not None else [],
        "any_error": any(table.column("error")[rows]) if "error" in table.columns else False,
        "pictures": any(crystal.picture for crystal in crystals),
        "cells": sum(cell is not None for cell in cells),
        "groups": any(crystal.group_number for crystal in crystals),
        "symprec": _SYMPREC,
        "sources": sources,
        "command": command,
        "identity": identity,
        "lines": [line for line in provenance if not line.startswith(_CAUTION)],
        "cautions": [
            line.removeprefix(_CAUTION) for line in provenance if line.startswith(_CAUTION)
        ],
        "versions": _versions() if versions is None else versions,
        "seconds": seconds,
        "created": created,
    }
    _write(path, render(context, data))


def _both(table: RowTable, name: str, indices: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    values = table.column(name)
    return values, values[:0] if indices is None else values[indices]


def _share_inside(table: RowTable) -> float | None:
    if "in_domain" not in table.columns:
        return None
    flags = [flag for flag in table.column("in_domain") if flag is not None]
    return sum(map(bool, flags)) / len(flags) if flags else None


def _crystals(
    table: RowTable, rows: np.ndarray, drawn: int
) -> tuple[list[_Crystal], list[dict[str, Any] | None], set[int]]:
    """Space group and picture of each row; scenes and elements of the pictures."""
    crystals: list[_Crystal] = []
    scenes: list[dict[str, Any] | None] = []
    numbers: set[int] = set()
    budget = _ATOMS
    labels = table.column("formula")[rows]
    for i, atoms in enumerate(table.structures(rows)):
        if isinstance(atoms, Exception):
            crystals.append(_Crystal())
            continue
        symmetry = find_symmetry(atoms, _SYMPREC)
        picture: str = ""
        found = None
        if symmetry is not None and i < drawn:
            try:
                drawing = draw_cell(symmetry[2])
            except ReciNetError:
                drawing = None
            if drawing is not None and len(drawing.numbers) <= budget:
                budget -= len(drawing.numbers)
                picture = svg(drawing, f"unit cell of {labels[i]}")
                found = scene(drawing)
                numbers |= set(drawing.numbers.tolist())
        scenes += [None] * (i - len(scenes)) + [found] if found else []
        lengths = atoms.cell.cellpar() if atoms.cell.rank == 3 else None
        group = (group_symbol(symmetry[0]), symmetry[1]) if symmetry else ("", 0)
        flat = flat_cell(atoms) if symmetry else None
        crystals.append(_Crystal(*group, _cell_text(lengths), picture, flat))
    return crystals, scenes, numbers


def _bounded(cells: Sequence[dict[str, Any] | None]) -> list[dict[str, Any] | None]:
    """Cells that can be saved from the page, None from where they are too many atoms."""
    sizes = np.cumsum([0 if cell is None else len(cell["z"]) for cell in cells])
    return [cell if size <= _ATOMS else None for cell, size in zip(cells, sizes, strict=True)]


def _cell_text(parameters: Any) -> str:
    """Lattice parameters in words."""
    if parameters is None:
        return ""
    a, b, c, alpha, beta, gamma = (float(x) for x in parameters)
    return (
        f"cell as given: a {a:.3f}, b {b:.3f}, c {c:.3f} Å; "
        f"\N{GREEK SMALL LETTER ALPHA} {alpha:.1f}, \N{GREEK SMALL LETTER BETA} {beta:.1f}, "
        f"\N{GREEK SMALL LETTER GAMMA} {gamma:.1f}°"
    )


def _diagrams(rows: Sequence[Mapping[str, Any]], hull: Hull | None) -> list[Diagram]:
    """The phase diagrams of the systems in the shortlist."""
    if hull is None:
        return []
    return diagrams(
        hull,
        [
            (f"{row['id']} ({row['formula']})", parse_formula(row["formula"]), row[DISTANCE])
            for row in rows
            if row.get(DISTANCE) is not None
        ],
    )


def _mixtures(rows: Sequence[Mapping[str, Any]], hull: Hull | None) -> list[tuple[Component, ...]]:
    """The decomposition of each row, none where it has no distance to the hull."""
    found: list[tuple[Component, ...]] = [()] * len(rows)
    if hull is None:
        return found
    known = [i for i, row in enumerate(rows) if row.get(DISTANCE) is not None]
    mixtures = hull.decompositions([rows[i]["formula"] for i in known])
    for i, components in zip(known, mixtures, strict=True):
        found[i] = components
    return found


def _rows(
    table: RowTable,
    rows: np.ndarray,
    names: Sequence[str],
    crystals: Sequence[_Crystal],
    hull: Hull | None,
) -> list[dict[str, Any]]:
    """The shortlist's rows as the template shows them."""
    scales = {}
    for name in names:
        ends = [f"{name}_low", f"{name}_high"] if has_interval(name, table.columns) else []
        parts = [np.asarray(table.column(column)[rows], np.float64) for column in (name, *ends)]
        numbers = np.concatenate(parts)
        numbers = numbers[np.isfinite(numbers)]
        scales[name] = (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)
    given = list(table.rows(rows))
    return [
        {
            **row,
            "crystal": crystal,
            "values": [_value(row, name, *scales[name]) for name in names],
            "mixture": components,
            "lacks": row.get(LACKS) or "",
        }
        for row, crystal, components in zip(given, crystals, _mixtures(given, hull), strict=True)
    ]


def _value(row: Mapping[str, Any], name: str, low: float, high: float) -> _Value:
    """A number with the bar of its interval."""
    number = row.get(name)
    if number is None or not np.isfinite(number):
        return _Value(None, "")
    first, last = row.get(f"{name}_low"), row.get(f"{name}_high")
    if first is None or last is None:
        return _Value(number, f"{number:.4g}")
    span = high - low or 1.0
    x, y, at = (round(4 + 72 * (v - low) / span, 1) for v in (first, last, number))
    return _Value(number, f"{number:.4g}", f"{first:.3g} to {last:.3g}", x, max(y, x + 0.5), at)


def _versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from recinet_ase._version import __version__

    found = {"recinet-ase": __version__, "Python": platform.python_version()}
    for name in ("torch", "ase", "numpy", "spglib"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode(errors="replace"))
    except OSError as error:
        raise ReciNetError(f"cannot write the report {path}: {error.strerror}") from None
