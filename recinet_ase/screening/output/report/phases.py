"""Phase diagrams of binary and ternary systems, as pictures without a script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from recinet_ase.stability.hull import Hull
from recinet_ase.stability.phases import Phase
from recinet_ase.stability.simplex import facets

DRAWN = 12
"""Systems drawn at most on a page."""

_MARKED = 40  # crystals in a diagram
_WIDTH, _HEIGHT = 340, 290
_LEFT, _RIGHT, _TOP, _BASE = 46, 322, 22, 252
_SIDE = 262.0
_SUBSCRIPT = str.maketrans("0123456789.", "₀₁₂₃₄₅₆₇₈₉.")


@dataclass(frozen=True)
class Diagram:
    """A phase diagram.

    Attributes:
        system: ``"Mg-Ti-O"``.
        svg: The picture.
        stable: Number of phases on the hull.
        crystals: Number of screened crystals in it.
    """

    system: str
    svg: Markup
    stable: int
    crystals: int


@dataclass(frozen=True)
class _Crystal:
    name: str
    amounts: Mapping[str, float]
    distance: float
    energy: float


def diagrams(
    hull: Hull, rows: Sequence[tuple[str, Mapping[str, float], float]], drawn: int = DRAWN
) -> list[Diagram]:
    """The diagrams of the binary and ternary systems among crystals, in their order.

    Args:
        hull: The hull.
        rows: Name, amounts by symbol and distance to the hull in eV/atom of each crystal.
        drawn: Systems at most.
    """
    systems: dict[tuple[str, ...], list[_Crystal]] = {}
    kept = [row for row in rows if len(row[1]) in (2, 3)]
    energies = hull.energies_of([amounts for _, amounts, _ in kept])
    for (name, amounts, distance), energy in zip(kept, energies.tolist(), strict=True):
        system = tuple(sorted(amounts))
        if system in systems or len(systems) < drawn:
            crystal = _Crystal(name, amounts, distance, energy + distance)
            systems.setdefault(system, []).append(crystal)
    found = []
    for system, crystals in systems.items():
        phases = hull.phases(system)
        known = {next(iter(p.amounts)) for p in phases if len(p.amounts) == 1}
        phases += [Phase.of(e, 0.0) for e in system if e not in known]
        draw = _binary if len(system) == 2 else _ternary
        body = draw(system, phases, crystals[:_MARKED])
        title = "-".join(system)
        svg = (
            f'<svg class="phases" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="Phase diagram of {title}">{body}</svg>'
        )
        found.append(Diagram(title, Markup(svg), len(phases), len(crystals)))
    return found


def _share(amounts: Mapping[str, float], symbol: str) -> float:
    return amounts.get(symbol, 0.0) / sum(amounts.values())


def _binary(system: Sequence[str], phases: Sequence[Phase], crystals: Sequence[_Crystal]) -> str:
    """Formation energy over composition."""
    second = system[1]
    energies = [*(p.energy for p in phases), *(c.energy for c in crystals), 0.0]
    low, high = min(energies), max(energies)
    margin = 0.06 * (high - low or 1.0)
    low, high = low - margin, high + margin

    def at(amounts: Mapping[str, float], energy: float) -> tuple[float, float]:
        x = _LEFT + (_RIGHT - _LEFT) * _share(amounts, second)
        return x, _TOP + (_BASE - _TOP) * (high - energy) / (high - low)

    corners = sorted(phases, key=lambda p: _share(p.amounts, second))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p.amounts, p.energy) for p in corners))
    parts = [
        f'<path class="axis" d="M{_LEFT} {_TOP}V{_BASE}H{_RIGHT}V{_TOP}"/>',
        f'<polyline class="tie" points="{line}"/>',
    ]
    for energy in _ticks(low, high):
        y = _TOP + (_BASE - _TOP) * (high - energy) / (high - low)
        parts.append(
            f'<path class="grid" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
            f"{_text('tick', _LEFT - 5, y + 4, f'{energy:g}', 'end')}"
        )
    parts.append(_text("tick", _LEFT, 13, "formation energy (eV/atom)", "start"))
    for x, symbol in ((_LEFT, system[0]), (_RIGHT, second)):
        parts.append(_text("end", x, _BASE + 18, symbol))
    parts += _corners(phases, [at(p.amounts, p.energy) for p in phases], below=True)
    parts += [_crystal(c, *at(c.amounts, c.energy)) for c in crystals]
    return "".join(parts)


def _ternary(system: Sequence[str], phases: Sequence[Phase], crystals: Sequence[_Crystal]) -> str:
    """Gibbs' triangle with the facets of the hull."""
    height = _SIDE * math.sqrt(3) / 2
    left, base = (_WIDTH - _SIDE) / 2, _TOP + 6 + height

    def at(amounts: Mapping[str, float]) -> tuple[float, float]:
        right, top = _share(amounts, system[1]), _share(amounts, system[2])
        return left + _SIDE * (right + top / 2), base - height * top

    parts = []
    points = [[_share(p.amounts, e) for e in system] for p in phases]
    for i, j in facets(points, [p.energy for p in phases]):
        (x1, y1), (x2, y2) = at(phases[i].amounts), at(phases[j].amounts)
        parts.append(f'<path class="tie" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')
    for symbol, dx, dy, anchor in (
        (system[0], -5, 16, "end"), (system[1], 5, 16, "start"), (system[2], 0, -9, "middle")
    ):  # fmt: skip
        x, y = at({symbol: 1.0})
        parts.append(_text("end", x + dx, y + dy, symbol, anchor))
    parts += _corners(phases, [at(p.amounts) for p in phases])
    parts += [_crystal(c, *at(c.amounts)) for c in crystals]
    return "".join(parts)


def _corners(
    phases: Sequence[Phase], places: Sequence[tuple[float, float]], below: bool = False
) -> list[str]:
    """Phases on the hull, compounds named where there is room; all where the pointer rests."""
    parts: list[str] = []
    named: list[tuple[float, float, float]] = []
    for phase, (x, y) in zip(phases, places, strict=True):
        formula = str(escape(phase.formula.translate(_SUBSCRIPT)))
        name = f" [{escape(phase.id)}]" if phase.id else ""
        about = f"<title>{formula}{name}: {phase.energy:.3f} eV/atom</title>"
        parts.append(f'<circle class="stable" cx="{x:.1f}" cy="{y:.1f}" r="3.6">{about}</circle>')
        half, line = 3.2 * len(formula), y + (16 if below else -7)
        free = all(abs(x - u) > half + w or abs(line - v) > 10 for u, v, w in named)
        if len(phase.amounts) > 1 and free:
            named.append((x, line, half))
            parts.append(_text("name", x, line, formula))
    return parts


def _crystal(crystal: _Crystal, x: float, y: float) -> str:
    """A screened crystal."""
    about = escape(f"{crystal.name}: {crystal.distance:+.3f} eV/atom from the hull")
    d = 4.6
    return (
        f'<path class="found" d="M{x:.1f} {y - d:.1f}l{d} {d}l-{d} {d}l-{d} -{d}z">'
        f"<title>{about}</title></path>"
    )


def _text(kind: str, x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / 2))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= 5)
    first = math.ceil(low / step)
    return [round(k * step, 6) for k in range(first, math.floor(high / step) + 1)]
