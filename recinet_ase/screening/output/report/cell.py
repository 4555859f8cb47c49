"""Unit cells as pictures: projected spheres, bonds and cell edges."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from recinet_ase.errors import ReciNetError, StructureError

if TYPE_CHECKING:
    from ase import Atoms

MAXIMUM_SPHERES = 400
"""Atoms drawn at most, copies on the faces of the cell included."""

_FACE = 0.02  # fractional distance to a face at which an atom is drawn on both
_BOND = 1.15  # longest bond over the sum of the covalent radii
_RADIUS = 0.48  # of a sphere over the covalent radius
_TURN, _TILT = np.radians(-24.0), np.radians(14.0)
_SIZE = 96.0


@dataclass(frozen=True)
class Drawing:
    """A cell as it is drawn, seen along the second axis, the third upwards.

    Attributes:
        positions: Centres, angstrom from the middle of the cell ``[M, 3]``.
        numbers: Atomic numbers ``[M]``.
        bonds: Pairs of bonded atoms ``[K, 2]``.
        corners: Corners of the cell ``[8, 3]``; corner ``4i + 2j + k`` is i a + j b + k c.
    """

    positions: np.ndarray
    numbers: np.ndarray
    bonds: np.ndarray
    corners: np.ndarray


EDGES = tuple((i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit)
"""Pairs of corners joined by an edge of the cell."""


Cell = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Lattice vectors as rows ``[3, 3]``, fractional coordinates ``[N, 3]``, atomic numbers ``[N]``."""


def find_symmetry(atoms: Atoms, precision: float) -> tuple[str, int, Cell] | None:
    """Space group (international symbol and number) and conventional cell, by spglib.

    Args:
        atoms: A crystal.
        precision: Distance in angstrom within which atoms are equivalent.

    Returns:
        None where spglib finds no symmetry at all, e.g. for what is no crystal.
    """
    import spglib

    from recinet_ase.graph.adapters import to_crystal

    try:
        crystal = to_crystal(atoms)  # spglib ends the process where coordinates are no numbers
    except StructureError:
        return None
    cell = (crystal.lattice, crystal.frac_coords, crystal.numbers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old error handling is spglib's own default
            found = spglib.get_symmetry_dataset(cell, symprec=precision)
    except Exception:
        return None
    if found is None:
        return None
    conventional = (found.std_lattice, found.std_positions, found.std_types)
    return str(found.international), int(found.number), conventional


def flat_cell(atoms: Atoms) -> dict[str, Any]:
    """A cell as given, in plain lists that a CIF can be written from.

    Returns:
        ``cell`` (a, b, c in angstrom, angles in degrees), ``z`` (symbols) and ``xyz`` (fractional
        coordinates, one list).
    """
    return {
        "cell": [round(float(x), 6) for x in atoms.cell.cellpar()],
        "z": atoms.get_chemical_symbols(),
        "xyz": np.round(atoms.get_scaled_positions(), 6).ravel().tolist(),
    }


def draw_cell(cell: Cell) -> Drawing:
    """Arrange a cell for drawing: atoms on a face are drawn on the opposite one too.

    Raises:
        ReciNetError: If it is no crystal, or larger than can be seen.
    """
    from ase.data import covalent_radii

    from recinet_ase.graph.crystal import Crystal

    lattice, positions, elements = cell
    crystal = Crystal.from_arrays(elements, positions, lattice)
    if len(crystal.numbers) > MAXIMUM_SPHERES:
        raise ReciNetError(f"{len(crystal.numbers)} atoms are too many to draw")
    frac = np.where(crystal.frac_coords > 1 - _FACE, crystal.frac_coords - 1, crystal.frac_coords)
    copies = [
        (f + shift, number)
        for f, number in zip(frac, crystal.numbers, strict=True)
        for shift in product(*((0, 1) if abs(x) < _FACE else (0,) for x in f))
    ]
    if len(copies) > MAXIMUM_SPHERES:
        copies = list(zip(frac, crystal.numbers, strict=True))
    lattice = crystal.lattice @ _view(crystal.lattice)
    middle = lattice.sum(axis=0) / 2
    positions = np.array([f for f, _ in copies]) @ lattice - middle
    numbers = np.array([number for _, number in copies])
    radii = covalent_radii[numbers]
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    bonds = np.argwhere(np.triu(distance < _BOND * (radii[:, None] + radii), 1))
    corners = np.array(list(product((0, 1), repeat=3))) @ lattice - middle
    return Drawing(positions, numbers, bonds, corners)


def _view(lattice: np.ndarray) -> np.ndarray:
    """Rotation (applied from the right) to c upwards, a to the right, turned a little."""
    up = lattice[2] / np.linalg.norm(lattice[2])
    right = lattice[0] - (lattice[0] @ up) * up
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(up, right), up], axis=1)
    c, s = np.cos(_TURN), np.sin(_TURN)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    c, s = np.cos(_TILT), np.sin(_TILT)
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    rotation: np.ndarray = axes @ turn @ tilt
    return rotation


def svg(drawing: Drawing, label: str) -> Markup:
    """The picture as inline SVG; its spheres are filled from `gradients`.

    Args:
        drawing: From `draw_cell`.
        label: Text for those who cannot see it.
    """
    from ase.data import covalent_radii

    radii = _RADIUS * covalent_radii[drawing.numbers]
    ends = np.concatenate(
        [drawing.positions + radii[:, None], drawing.positions - radii[:, None], drawing.corners]
    )[:, [0, 2]]
    low, high = ends.min(axis=0), ends.max(axis=0)
    scale = (_SIZE - 4) / max(high - low)

    def flat(points: np.ndarray) -> np.ndarray:
        centred = (points[:, [0, 2]] - (low + high) / 2) * scale * (1, -1)
        shifted: np.ndarray = centred + _SIZE / 2
        return shifted

    spheres, corners = flat(drawing.positions), flat(drawing.corners)
    items: list[tuple[float, str]] = []
    for i, j in EDGES:
        depth = (drawing.corners[i, 1] + drawing.corners[j, 1]) / 2
        (x, y), (u, v) = corners[i], corners[j]
        items.append((depth, f'<path class="e" d="M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}"/>'))
    for (x, y), radius, number, depth in zip(
        spheres, radii * scale, drawing.numbers, drawing.positions[:, 1], strict=True
    ):
        items.append(
            (depth, f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="url(#z{number})"/>')
        )
    items.sort(key=lambda item: -item[0])  # the farthest first
    # Numbers only, but for the label, which Markup.format escapes.
    body = Markup("".join(text for _, text in items))
    return Markup('<svg viewBox="0 0 {0} {0}" role="img" aria-label="{1}">{2}</svg>').format(
        int(_SIZE), label, body
    )


def palette(numbers: Iterable[int]) -> dict[int, tuple[str, str, float]]:
    """Symbol, colour ``#rrggbb`` and sphere radius in angstrom of each element."""
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors

    return {
        int(z): (
            chemical_symbols[z],
            _hex(jmol_colors[z]),
            round(float(_RADIUS * covalent_radii[z]), 3),
        )
        for z in sorted(set(numbers))
    }


def _hex(rgb: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(x)):02x}" for x in rgb)


def gradients(numbers: Iterable[int]) -> list[tuple[int, str, str, str]]:
    """Atomic number, highlight, colour and shade of each element's sphere."""
    from ase.data.colors import jmol_colors

    return [
        (
            int(z),
            _hex(0.35 * jmol_colors[z] + 0.65),
            _hex(jmol_colors[z]),
            _hex(0.55 * jmol_colors[z]),
        )
        for z in sorted(set(numbers))
    ]


def scene(drawing: Drawing) -> dict[str, Any]:
    """What the page's own viewer turns: plain numbers."""
    return {
        "xyz": np.round(drawing.positions, 2).ravel().tolist(),
        "z": drawing.numbers.tolist(),
        "bonds": drawing.bonds.ravel().tolist(),
        "corners": np.round(drawing.corners, 2).ravel().tolist(),
    }
