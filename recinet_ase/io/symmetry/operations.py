"""Symmetry operations of a space group, and the atoms of a cell that they make of a few sites.

Coordinates are fractional; an operation takes a column x to R x + t, modulo 1.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np

from recinet_ase.errors import StructureError

SITE_TOLERANCE = 0.1
"""Images of a site nearer than this (angstrom) are one atom on a special position, which is
moved to their middle: coordinates are written with two digits or more."""

_MAXIMUM_DENOMINATOR = 48
_TRANSLATION_ERROR = 2e-3  # 0.333 and 0.667 are thirds
_LARGEST_ENTRY = 3  # of a rotation in an unusual cell
_TERM = re.compile(r"([+-]?)(?:(\d+/\d+|\d*\.?\d+|\d+\.)?\*?([xyz])|(\d+/\d+|\d*\.?\d+|\d+\.))")


@dataclass(frozen=True, eq=False, repr=False)
class Operations:
    """A space group by its operations, modulo lattice translations.

    Attributes:
        rotations: int ``[M, 3, 3]``.
        translations: In units of 1 / `denominator`, int ``[M, 3]``, in [0, denominator).
        denominator: Of all translations.
    """

    rotations: np.ndarray
    translations: np.ndarray
    denominator: int

    def __len__(self) -> int:
        return len(self.rotations)

    @cached_property
    def shifts(self) -> np.ndarray:
        """Translations as fractions of the cell, float64 ``[M, 3]``."""
        return self.translations / self.denominator

    def triplets(self) -> tuple[str, ...]:
        """In the notation ``-x,y+1/2,z``."""
        return tuple(
            ",".join(map(self._row, turn, shift))
            for turn, shift in zip(self.rotations.tolist(), self.translations.tolist(), strict=True)
        )

    def _row(self, turn: list[int], shift: int) -> str:
        terms = [f"{n:+d}{axis}" for n, axis in zip(turn, "xyz", strict=True) if n]
        return "".join(terms) + f"+{Fraction(shift, self.denominator)}"

    @cached_property
    def key(self) -> frozenset[tuple[int, ...]]:
        """Equal for the same operations in any order."""
        scaled = self.translations * (_common(self.denominator) // self.denominator)
        rows = np.concatenate([self.rotations.reshape(-1, 9), scaled], axis=1)
        return frozenset(map(tuple, rows.tolist()))

    @cached_property
    def products(self) -> np.ndarray:
        """Index of the operation k l, int ``[M, M]``.

        Raises:
            StructureError: If the operations are no group.
        """
        order = np.argsort(codes := _codes(self.rotations, self.translations, self.denominator))
        rotations = np.einsum("kab,lbc->klac", self.rotations, self.rotations)
        shifts = np.einsum("kab,lb->kla", self.rotations, self.translations)
        shifts = (shifts + self.translations[:, None]) % self.denominator
        if np.abs(rotations).max() > _LARGEST_ENTRY:
            raise _no_group()
        wanted = _codes(rotations, shifts, self.denominator)
        index = order[np.searchsorted(codes, wanted, sorter=order).clip(max=len(order) - 1)]
        if not (codes[index] == wanted).all():
            raise _no_group()
        return index

    def fits(self, lattice: np.ndarray) -> bool:
        """Whether a cell's lengths and angles have this symmetry, to 1.5 % and a degree or so.

        Args:
            lattice: Lattice vectors as rows, ``[3, 3]``.
        """
        if len(self) == 1:
            return True
        metric = lattice @ lattice.T
        images = np.einsum("mab,ac,mcd->mbd", self.rotations, metric, self.rotations)
        scale = np.sqrt(np.outer(metric.diagonal(), metric.diagonal()))
        return bool((np.abs(images - metric) <= 0.03 * scale).all())


def _no_group() -> StructureError:
    return StructureError(
        "the symmetry operations are no group: one of them is missing, or damaged"
    )


def _common(denominator: int) -> int:
    return math.lcm(denominator, 24)


def _codes(rotations: np.ndarray, translations: np.ndarray, denominator: int) -> np.ndarray:
    """A number for each operation, equal for equal ones."""
    base = 2 * _LARGEST_ENTRY + 1
    flat = (rotations + _LARGEST_ENTRY).reshape(*rotations.shape[:-2], 9)
    code: np.ndarray = flat @ base ** np.arange(9)
    return code * denominator**3 + translations @ denominator ** np.arange(3)


@lru_cache(maxsize=1024)
def operations(triplets: tuple[str, ...]) -> Operations:
    """Operations in the notation ``-x, y+1/2, z``.

    Raises:
        StructureError: If one cannot be understood.
    """
    rows = [parse_triplet(text) for text in triplets]
    shifts = [shift.as_integer_ratio() for _, row in rows for shift in row]
    denominator = math.lcm(*(below for _, below in shifts))
    return _distinct(
        np.array([row for row, _ in rows], dtype=np.int64),
        np.array([above * (denominator // below) for above, below in shifts]).reshape(-1, 3),
        denominator,
    )


def combined(first: Operations, second: Operations) -> Operations:
    """Every product of an operation of the first with one of the second."""
    denominator = math.lcm(first.denominator, second.denominator)
    outer, inner = (
        group.translations * (denominator // group.denominator) for group in (first, second)
    )
    rotations = np.einsum("kab,lbc->klac", first.rotations, second.rotations)
    shifts = outer[:, None] + np.einsum("kab,lb->kla", first.rotations, inner)
    return _distinct(rotations.reshape(-1, 3, 3), shifts.reshape(-1, 3), denominator)


def _distinct(rotations: np.ndarray, shifts: np.ndarray, denominator: int) -> Operations:
    """Operations without repetition.

    Raises:
        StructureError: If one of them is none.
    """
    volumes = np.abs(np.linalg.det(rotations).round(3))
    if (np.abs(rotations) > _LARGEST_ENTRY).any() or (volumes != 1).any():
        raise StructureError("a symmetry operation changes the volume of the cell")
    shifts = shifts % denominator
    codes = _codes(rotations, shifts, denominator)
    kept = np.sort(np.unique(codes, return_index=True)[1])
    return Operations(rotations[kept], shifts[kept], denominator)


def parse_triplet(text: str) -> tuple[list[tuple[int, ...]], list[Fraction]]:
    """Rotation and translation of ``1/2+x, -y, z``.

    Raises:
        StructureError: If it is no such text.
    """
    parts = "".join(text.lower().split()).split(",")
    try:
        if len(parts) != 3:
            raise ValueError
        rows = [_parse_row(part) for part in parts]
    except (ValueError, ZeroDivisionError):
        raise StructureError(
            f"the symmetry operation {text.strip()[:40]!r} cannot be understood"
        ) from None
    return [row[0] for row in rows], [row[1] for row in rows]


@lru_cache(maxsize=4096)
def _parse_row(text: str) -> tuple[tuple[int, ...], Fraction]:
    """Factors of x, y and z and the translation of a part such as ``-y+1/2``."""
    rotation, shift, at = [0, 0, 0], Fraction(0), 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None or (at and not match[1]):
            raise ValueError
        at = match.end()
        sign = -1 if match[1] == "-" else 1
        if match[3]:
            factor = _fraction(match[2] or "1")
            if factor.denominator != 1:
                raise ValueError
            rotation["xyz".index(match[3])] += sign * int(factor)
        else:
            shift += sign * _fraction(match[4])
    if not text:
        raise ValueError
    return tuple(rotation), shift


def _fraction(text: str) -> Fraction:
    value = Fraction(text)
    near = value.limit_denominator(_MAXIMUM_DENOMINATOR)
    if abs(near - value) > _TRANSLATION_ERROR:
        raise ValueError
    return near


class NearSpecialPositionError(StructureError):
    """A site that lies near a special position and not on it."""

    def __init__(self, site: int) -> None:
        super().__init__(
            f"lies about {SITE_TOLERANCE} A from a special position and from its own images; "
            "write its coordinates with more digits"
        )
        self.site = site


def expanded(
    group: Operations, frac_coords: np.ndarray, lattice: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All atoms of the cell that the operations make of some sites.

    Args:
        group: The operations.
        frac_coords: Fractional coordinates of the sites, ``[N, 3]``.
        lattice: Lattice vectors as rows in angstrom, ``[3, 3]``.

    Returns:
        Number of the site and fractional coordinates of each atom, ``[A]`` and ``[A, 3]``.

    Raises:
        NearSpecialPositionError: If a site lies near a special position and not on it.
    """
    if len(group) == 1:
        return np.arange(len(frac_coords)), frac_coords
    turned = np.einsum("mab,nb->nma", group.rotations, frac_coords) + group.shifts
    offsets = turned - frac_coords[:, None]
    offsets -= np.round(offsets)
    fixed = ((offsets @ lattice) ** 2).sum(axis=2) < SITE_TOLERANCE**2
    orders = fixed.sum(axis=1)
    # The middle of the images that coincide lies on the special position exactly.
    middle = frac_coords + (offsets * fixed[..., None]).sum(axis=1) / orders[:, None]
    images = np.einsum("mab,nb->nma", group.rotations, middle) + group.shifts
    sites, coords = [], []
    everything = np.arange(len(group))
    for site, order in enumerate(orders.tolist()):
        # Operations k and l give the same atom where k = l s, s being one that fixes the site:
        # the first of each such coset stands for it.
        first = everything
        if order > 1:
            first = everything[group.products[:, fixed[site]].min(axis=1) == everything]
        if len(first) * order != len(group):
            raise NearSpecialPositionError(site)
        sites.append(np.full(len(first), site))
        coords.append(images[site, first])
    return np.concatenate(sites), np.concatenate(coords)


def same_atoms(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    lattice: np.ndarray,
) -> bool:
    """Whether two lists of atomic numbers and fractional coordinates are the same crystal."""
    (numbers, coords), (others, places) = first, second
    if len(numbers) != len(others):
        return False
    from scipy.spatial import KDTree

    tree = KDTree(wrapped(places), boxsize=1)
    nearest = tree.query(wrapped(coords))[1]
    offsets = coords - places[nearest]
    offsets -= np.round(offsets)
    near = ((offsets @ lattice) ** 2).sum(axis=1) < SITE_TOLERANCE**2
    alike = near & (numbers == others[nearest])
    return bool(alike.all() and len(np.unique(nearest)) == len(nearest))


def wrapped(frac_coords: np.ndarray) -> np.ndarray:
    """Fractional coordinates in [0, 1)."""
    inside = frac_coords % 1.0
    inside[inside >= 1.0] = 0.0  # what a tiny negative number leaves
    return inside
