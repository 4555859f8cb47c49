"""The last words of a screen on the terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from recinet_ase.screening.output.statistics import error_kinds, property_figures
from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import RowTable, has_interval, property_columns

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDEST = {"id": 40, "formula": 24}  # characters of a column
_ANY = 10_000  # columns, more than any table has
_PLAIN_WIDTH = 120  # columns where the output is a file


def print_summary(
    table: RowTable,
    indices: np.ndarray | None = None,
    *,
    selection: Selection | None = None,
    shown: int = 10,
    file: TextIO | None = None,
) -> None:
    """Counts, errors by kind, the range of each property, and the first rows of the shortlist.

    Coloured tables on a terminal, plain columns elsewhere.

    Args:
        table: All rows.
        indices: The rows kept, in order; all of them if None.
        selection: How they were chosen.
        shown: Rows of the shortlist to print; 0 for none.
        file: Where to, standard error by default.
    """
    from rich.console import Console

    stream = file or sys.stderr
    terminal = stream.isatty()
    console = Console(
        file=stream,
        width=None if terminal else _PLAIN_WIDTH,
        no_color=not terminal,
        highlight=False,
        markup=False,  # ids and errors are the user's, not markup
        emoji=False,
    )
    kinds = error_kinds(table)
    failed = sum(kind.count for kind in kinds)
    counts = [f"{len(table):,} structures", f"{failed:,} with errors"]
    if indices is not None:
        counts.append(f"{len(indices):,} selected")
    console.print(", ".join(counts), style="bold")
    for line in selection.explain(table.columns, table.units) if selection else ():
        console.print(f"  {_short(line, 2500)}", soft_wrap=True)
    for kind in kinds[:8]:
        console.print(
            f"  {kind.count:>7,} x  {_short(kind.reason)} (first: {_short(kind.first_id, 40)})"
        )
    if len(kinds) > 8:
        console.print(f"  {sum(k.count for k in kinds[8:]):>7,} x  other reasons")
    if len(table):
        _print_properties(console, table, terminal)
    chosen = np.arange(len(table)) if indices is None else indices
    if shown and selection and len(chosen):
        _print_rows(console, table, chosen[:shown], len(chosen), terminal)


def _table(terminal: bool, title: str) -> Table:
    """An empty table: with lines on a terminal, plain columns elsewhere."""
    from rich import box
    from rich.table import Table

    return Table(
        box=box.SIMPLE_HEAD if terminal else None,
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        pad_edge=False,
    )


def _print_properties(console: Console, table: RowTable, terminal: bool) -> None:
    """Range and domain of each property."""
    grid = _table(terminal, "")
    grid.add_column("property", no_wrap=True)
    grid.add_column("unit", no_wrap=True)
    heads = ("values", "minimum", "median", "maximum", "in domain")
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    lines = []
    for f in property_figures(table):
        share = "" if f.in_domain is None else f"{100 * f.in_domain:.0f} %"
        numbers = [_number(x) for x in (f.minimum, f.median, f.maximum)]
        cells = [f"{f.count:,}", *numbers, share]
        grid.add_row(f.name, f.unit or "1", *cells)
        told = [f"{head} {cell}" for head, cell in zip(heads, cells, strict=True) if cell]
        lines.append(f"{f.name} ({f.unit or '1'}): {', '.join(told)}")
    if _fits(console, grid):
        console.print(grid)
        return
    for line in lines:
        console.print(line, soft_wrap=True)


def _print_rows(
    console: Console, table: RowTable, rows: np.ndarray, total: int, terminal: bool
) -> None:
    """The first rows of the shortlist."""
    from rich.text import Text

    title = "selected" if total <= len(rows) else f"first {len(rows)} of {total:,} selected"
    grid = _table(terminal, title)
    names = property_columns(table.columns, table.units)
    shown = list(table.rows(rows))
    texts = {name: [_short(str(row.get(name) or "")) for row in shown] for name in _WIDEST}
    for name, widest in _WIDEST.items():
        # A narrow terminal must not squeeze away which structure it is.
        width = min(widest, max(map(len, (name, *texts[name]))))
        grid.add_column(name, min_width=width, max_width=width, overflow="ellipsis", no_wrap=True)
    for name in names:
        unit = table.units.get(name, "")
        between = "\n" if terminal else " "
        head = f"{name}{between}({unit})" if unit else name
        grid.add_column(head, justify="right", no_wrap=True)
    domain = "in_domain" in table.columns
    if domain:
        grid.add_column("in domain", no_wrap=True)
    for i, row in enumerate(shown):
        cells = [Text(texts[name][i]) for name in _WIDEST]
        cells += [Text(_value(row, name, table.columns)) for name in names]
        if domain:
            flag = row.get("in_domain")
            cells.append(Text("" if flag is None else "yes" if flag else "no"))
        grid.add_row(*cells)
    if _fits(console, grid):
        console.print(grid)
    else:
        _print_records(console, table, shown, names, title)


def _fits(console: Console, grid: Table) -> bool:
    """Whether every number has its place on one line: what is cut or folded reads as another."""
    from rich.measure import Measurement

    return Measurement.get(console, console.options.update(width=_ANY), grid).maximum <= (
        console.width
    )


def _print_records(
    console: Console,
    table: RowTable,
    rows: Sequence[dict[str, Any]],
    names: Sequence[str],
    title: str,
) -> None:
    """One line a value, where a table would be too wide to be read."""
    console.print(title, style="bold")
    for row in rows:
        console.print(
            f"{_short(str(row.get('id') or ''))}  {row.get('formula') or ''}", soft_wrap=True
        )
        for name in names:
            value = f"  {name} {_value(row, name, table.columns)} {table.units.get(name, '')}"
            console.print(value.rstrip(), soft_wrap=True)


def _value(row: dict[str, Any], name: str, columns: Sequence[str]) -> str:
    value = row.get(name)
    if value is None:
        return ""
    if not has_interval(name, columns) or row.get(f"{name}_low") is None:
        return _number(value)
    return f"{_number(value)} [{_number(row[f'{name}_low'])}, {_number(row[f'{name}_high'])}]"


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4g}"


def _short(text: str, length: int = 160) -> str:
    text = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return text if len(text) <= length else f"{text[: length - 3]}..."
