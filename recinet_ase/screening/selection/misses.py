"""Why a condition keeps nothing: what each part of it rejects, and the nearest misses."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

import numpy as np

from recinet_ase.screening.selection.expression import Expression
from recinet_ase.screening.selection.selection import Selection
from recinet_ase.screening.selection.table import RowTable, property_columns

SHOWN = 3
"""Rows that are named as nearest misses."""


@dataclass(frozen=True)
class Rejections:
    """What a condition rejects.

    Attributes:
        parts: Each condition that must hold, with the number of rows that it rejects.
        nearest: Places of the rows that fail the fewest of them, best first.
        failed: For each of these the conditions that it fails.
    """

    parts: tuple[tuple[str, int], ...]
    nearest: tuple[int, ...]
    failed: tuple[tuple[str, ...], ...]


def rejections(table: RowTable, selection: Selection) -> Rejections:
    """Count what each condition of a selection rejects by itself.

    Args:
        table: All rows.
        selection: Its condition is divided where ``and`` joins it; with ``confident`` the domain
            is a condition of its own, and each of the others is judged on the whole interval.
    """
    text = " ".join((selection.where or "True").splitlines()).strip()
    names = [_text(part) for part in _joined(ast.parse(text, mode="eval").body)]
    held = []
    inside = np.ones(len(table), dtype=bool)
    if selection.confident:
        flags = table.column("in_domain")
        inside = np.array([flag is not None and bool(flag) for flag in flags], dtype=bool)
    answered = np.array([not error for error in table.column("error")], dtype=bool)
    for name in names:
        condition = Expression(name, table.columns, table.units)
        passed = condition.mask(table)
        if selection.confident and condition.properties:
            # Outside the domain nothing is confident: that is counted apart.
            passed &= condition.mask(table, confident=True) | ~inside
        held.append(passed)
    labels = [f"{n} on the whole interval" if selection.confident else n for n in names]
    if selection.confident:
        labels.append("inside the domain")
        held.append(inside)
    grid = np.stack(held, axis=1) if held else np.ones((len(table), 0), dtype=bool)
    counts = (~grid[answered]).sum(0)
    order = np.argsort((~grid).sum(1) + 1000 * ~answered, kind="stable")[:SHOWN]
    order = order[answered[order]]
    return Rejections(
        tuple(zip(labels, counts.tolist(), strict=True)),
        tuple(order.tolist()),
        tuple(
            tuple(label for label, passed in zip(labels, grid[row], strict=True) if not passed)
            for row in order
        ),
    )


def _joined(node: ast.expr) -> list[ast.expr]:
    """The conditions that all must hold, a chain such as ``1 < x < 2`` in its two halves."""
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        return [part for value in node.values for part in _joined(value)]
    if isinstance(node, ast.Compare) and len(node.ops) > 1:
        sides = [node.left, *node.comparators]
        return [ast.Compare(sides[i], [op], [sides[i + 1]]) for i, op in enumerate(node.ops)]
    return [node]


def _text(node: ast.expr) -> str:
    """A condition as text; what stands in brackets is a model's name, and no difference."""
    return re.sub(r"(?<=\w)\[[^]]*\]", lambda found: found[0].replace(" ", ""), ast.unparse(node))


def told(table: RowTable, selection: Selection) -> list[str]:
    """The same in lines for a terminal."""
    found = rejections(table, selection)
    lines = ["nothing is selected; of the rows without an error"]
    lines += [f"  {count:>7,} are not: {label}" for label, count in found.parts]
    if found.nearest:
        lines.append("nearest misses:")
    numbers = property_columns(table.columns, table.units)
    rows = table.rows(np.array(found.nearest, dtype=np.int64))
    for row, failed in zip(rows, found.failed, strict=True):
        values = []
        for name in numbers:
            if row.get(name) is None:
                continue
            low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
            ends = "" if low is None or high is None else f" [{low:.4g}, {high:.4g}]"
            values.append(f"{name} {row[name]:.4g}{ends}")
        lines.append(f"  {row.get('id')} {row.get('formula') or ''}: {', '.join(values)}")
        lines.append(f"    fails {'; '.join(failed)}")
    return lines
