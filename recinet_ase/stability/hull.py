"""Convex hulls of known phases: distances, decompositions, and what is not known."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain, combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.elements import MAX_Z, electronegativities, symbols
from recinet_ase.stability.composition import (
    amounts_of,
    atomic_numbers,
    system_of,
)
from recinet_ase.stability.convert import phases_of_entries, to_diagram, to_entries
from recinet_ase.stability.files import read_phases
from recinet_ase.stability.phases import Component, Phase
from recinet_ase.stability.references import shipped_phases
from recinet_ase.stability.simplex import Mixtures, lowest_mixtures

if TYPE_CHECKING:
    from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram

POLAR = 1.0
"""Difference of Pauling electronegativities from which a pair of elements without a binary
compound means that references lack."""

_SAME = 1e-9  # eV/atom
_NUMBERS = 2_000_000  # in an array of problems, which keeps it at 16 MB
_REMEMBERED = 50_000  # chemical systems
_ABSENT = 1e-8  # shares of atoms below are rounding


class Hull:
    """The convex hull of formation energies of known phases.

    Only phases on the hull of their own chemical system are kept: no other can ever be part of a
    lowest mixture, whatever is added later. An element without a phase has the energy 0,
    which is what a formation energy is measured from; `missing` names it.

    Args:
        phases: Known phases, of one level of theory.
        functional: The level of theory, ``""`` if not stated.
        name: What to call these references.
        pairs: Pairs of elements with a known binary compound beside those among ``phases``
            (compounds that were left out because they are not on the hull).
        corners: Whether each of the phases is known to lie on the hull.
    """

    def __init__(
        self,
        phases: Iterable[Phase],
        functional: str = "",
        name: str = "",
        pairs: Iterable[frozenset[str]] = (),
        corners: bool = False,
    ) -> None:
        self.functional, self.name = functional, name
        self._pairs = set(pairs)
        self._elements: dict[str, Phase] = {}
        self._element_energy = np.zeros(MAX_Z + 1)
        self._phases: list[Phase] = []
        self._systems: dict[tuple[int, ...], list[int]] = defaultdict(list)
        self._known: dict[tuple[int, ...], list[int]] = {}
        self._shares = np.zeros((0, MAX_Z + 1))
        self._energy = np.zeros(0)
        if corners:
            self._add([phase for phase in phases if self._is_compound(phase)])
        else:
            self._build(self._lowest(phases))

    @classmethod
    def load(cls, name: str) -> Hull:
        """Shipped references: ``"jarvis"`` (OptB88vdW) or ``"mp"`` (PBE, 2018).

        Raises:
            UnknownNameError: If there are none of that name.
        """
        return _shipped(name)

    @classmethod
    def read(cls, path: str | Path) -> Hull:
        """References of one's own, from a file (`recinet_ase.stability.files.read_phases`).

        Raises:
            ReciNetError: If the file cannot be read or is not what it should be; says which row.
        """
        phases, functional = read_phases(path)
        return cls(phases, functional, Path(path).name)

    @classmethod
    def from_pymatgen(cls, source: Any, functional: str = "", name: str = "") -> Hull:
        """The hull of a pymatgen ``PhaseDiagram``, or of a list of its entries."""
        return cls(phases_of_entries(source), functional, name)

    def with_phases(self, phases: Iterable[Phase], name: str = "") -> Hull:
        """This hull with further phases."""
        return Hull([*self, *phases], self.functional, name or self.name, self._pairs)

    def joined(self, other: Hull) -> Hull:
        """The hull of the phases of both."""
        name = " + ".join(filter(None, (self.name, other.name)))
        pairs = self._pairs | other._pairs
        return Hull([*self, *other], self.functional or other.functional, name, pairs)

    def __iter__(self) -> Any:
        yield from self._elements.values()
        yield from self._phases

    def __len__(self) -> int:
        return len(self._elements) + len(self._phases)

    def __repr__(self) -> str:
        theory = f", {self.functional}" if self.functional else ""
        return f"<Hull {self.name or 'of'} {len(self)} phases{theory}>"

    # What is asked of it.

    def energy(self, composition: Any) -> float:
        """Energy of the hull at a composition, eV/atom."""
        return float(self.energies([composition])[0])

    def energies(self, compositions: Sequence[Any]) -> np.ndarray:
        """Energy of the hull at many compositions, eV/atom ``[B]``."""
        return self.energies_of([amounts_of(c) for c in compositions])

    def energies_of(self, amounts: Sequence[Mapping[str, float]]) -> np.ndarray:
        """`energies` for amounts by symbol, none of them 0, which are not looked at again."""
        found = np.empty(len(amounts))
        for rows, _, _, mixtures in self._solve(amounts):
            found[rows] = mixtures.energy
        return found

    def distance(self, composition: Any, energy: float) -> float:
        """Distance of a formation energy to the hull, eV/atom; negative below the hull.

        Args:
            composition: A formula, counts, atoms, or a pymatgen object.
            energy: Formation energy in eV/atom, of the hull's level of theory.
        """
        return float(energy) - self.energy(composition)

    def decomposition(self, composition: Any) -> tuple[Component, ...]:
        """The mixture of phases that the hull consists of at a composition, largest share first."""
        return self.decompositions([composition])[0]

    def decompositions(self, compositions: Sequence[Any]) -> list[tuple[Component, ...]]:
        """The mixture at each of many compositions."""
        return self.solved([amounts_of(c) for c in compositions])[1]

    def solved(
        self, amounts: Sequence[Mapping[str, float]]
    ) -> tuple[np.ndarray, list[tuple[Component, ...]]]:
        """`energies_of`, and the mixture at each."""
        energies = np.empty(len(amounts))
        found: list[tuple[Component, ...]] = [()] * len(amounts)
        for rows, numbers, places, mixtures in self._solve(amounts):
            energies[rows] = mixtures.energy
            for i, row in enumerate(rows):
                found[row] = self._components(
                    numbers[i], places[i], mixtures.columns[i], mixtures.fractions[i]
                )
        return energies, found

    def phases(self, system: str | Iterable[str]) -> list[Phase]:
        """The phases on the hull of a chemical system and all systems within it.

        Args:
            system: ``"Li-Fe-O"``, or symbols.
        """
        names = system_of(system)
        found = [self._elements[name] for name in names if name in self._elements]
        numbers = tuple(atomic_numbers()[name] for name in names)
        return found + [self._phases[i] for i in self._members(numbers)]

    def missing(self, composition: Any) -> list[str]:
        """What is not known of a composition's chemical system, in words; empty if nothing.

        Elements without a phase, and pairs of elements without a binary compound that can be
        expected to form one: their electronegativities differ by `POLAR` at least. (Other pairs,
        Ba and Hf for instance, often form none; crystals with such a pair lie below JARVIS' hull
        no more often than others do, docs/concepts/stability.md.)
        """
        scale, number = electronegativities(), atomic_numbers()
        names = sorted(amounts_of(composition), key=lambda name: scale[number[name]])
        lacking = [name for name in names if name not in self._elements]
        said = [f"no elemental {' or '.join(lacking)}"] if lacking else []
        pairs = [
            f"{a}-{b}"
            for a, b in combinations(names, 2)
            if abs(scale[number[a]] - scale[number[b]]) >= POLAR
            and frozenset((a, b)) not in self._pairs
        ]
        if pairs:
            said.append(f"no binary {' or '.join(pairs)}")
        return said

    @property
    def fingerprint(self) -> str:
        """A digest of its phases and of what lacks."""
        digest = hashlib.sha256(repr(sorted(map(sorted, self._pairs))).encode())
        for phase in sorted(self, key=lambda p: (p.formula, p.id)):
            digest.update(f"{phase.formula} {phase.energy!r} {phase.id}\n".encode())
        return digest.hexdigest()

    @property
    def pairs(self) -> frozenset[frozenset[str]]:
        """Pairs of elements with a known binary compound."""
        return frozenset(self._pairs)

    def entries(self, system: str | Iterable[str]) -> list[PDEntry]:
        """The phases of a chemical system as pymatgen's ``PDEntry``, energies of formation."""
        return to_entries(self.phases(system))

    def phase_diagram(self, system: str | Iterable[str]) -> PhaseDiagram:
        """A chemical system as pymatgen's ``PhaseDiagram``, for its plots.

        An element that has no phase here is put in with the energy 0.
        """
        return to_diagram(self.phases(system), system_of(system))

    def forget(self) -> None:
        """Free what is remembered of chemical systems that were asked for."""
        self._known.clear()

    # How it is kept.

    def _is_compound(self, phase: Phase) -> bool:
        """Whether a phase is no element; takes note of elements and pairs."""
        if len(phase.amounts) == 1:
            (symbol,) = phase.amounts
            known = self._elements.get(symbol)
            if known is None or phase.energy < known.energy:
                self._elements[symbol] = phase
                self._element_energy[atomic_numbers()[symbol]] = phase.energy
            return False
        if len(phase.amounts) == 2:
            self._pairs.add(frozenset(phase.amounts))
        return True

    def _lowest(self, phases: Iterable[Phase]) -> list[Phase]:
        """The lowest compound of each composition."""
        lowest: dict[tuple[tuple[str, float], ...], Phase] = {}
        for phase in filter(self._is_compound, phases):
            total = phase.atoms
            key = tuple(sorted((s, round(n / total, 7)) for s, n in phase.amounts.items()))
            if key not in lowest or phase.energy < lowest[key].energy:
                lowest[key] = phase
        return list(lowest.values())

    def _add(self, phases: Sequence[Phase]) -> None:
        """Take compounds in, each known to lie on the hull."""
        shares = np.zeros((len(phases), MAX_Z + 1))
        number = atomic_numbers()
        for i, phase in enumerate(phases):
            numbers = tuple(sorted([number[symbol] for symbol in phase.amounts]))
            self._systems[numbers].append(len(self._phases) + i)
            total = phase.atoms
            for symbol, amount in phase.amounts.items():
                shares[i, number[symbol]] = amount / total
        self._phases += phases
        self._shares = np.concatenate((self._shares, shares))
        self._energy = np.concatenate((self._energy, [p.energy for p in phases]))
        self._known.clear()

    def _build(self, phases: list[Phase]) -> None:
        """Add the phases on the hull, systems of few elements first.

        The phase farthest below the hull so far is always one of its corners, so that adding it
        for each system in turn never adds one that is not.
        """
        by_size: dict[int, list[Phase]] = defaultdict(list)
        for phase in phases:
            by_size[len(phase.amounts)].append(phase)
        for size in sorted(by_size):
            left = by_size[size]
            systems = [tuple(sorted(atomic_numbers()[s] for s in p.amounts)) for p in left]
            while left:
                depth = self.energies_of([p.amounts for p in left])
                depth -= np.array([p.energy for p in left])
                deepest: dict[tuple[int, ...], int] = {}
                for i in np.flatnonzero(depth > _SAME).tolist():
                    best = deepest.get(systems[i])
                    if best is None or depth[i] > depth[best]:
                        deepest[systems[i]] = i
                taken = set(deepest.values())
                self._add([left[i] for i in sorted(taken)])
                stay = [i for i in np.flatnonzero(depth > _SAME).tolist() if i not in taken]
                left, systems = [left[i] for i in stay], [systems[i] for i in stay]

    def _members(self, numbers: tuple[int, ...]) -> list[int]:
        """The compounds of a system and all within it."""
        found = self._known.get(numbers)
        if found is None:
            found = []
            for size in range(2, len(numbers) + 1):
                for part in combinations(numbers, size):
                    found += self._systems.get(part, ())
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[numbers] = found
        return found

    def _solve(
        self, compositions: Sequence[Mapping[str, float]]
    ) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray, Mixtures]]:
        """Rows, their elements ``[B, n]``, their phases ``[B, m]`` and their lowest mixtures."""
        numbers_of = atomic_numbers()
        by_size: dict[int, list[int]] = defaultdict(list)
        systems = []
        for i, amounts in enumerate(compositions):
            systems.append(tuple(sorted(numbers_of[symbol] for symbol in amounts)))
            by_size[len(amounts)].append(i)
        for size, rows in by_size.items():
            members = [self._members(systems[i]) for i in rows]
            order = sorted(range(len(rows)), key=lambda k: len(members[k]))
            start = 0
            while start < len(order):
                # Problems of like size share an array.
                stop = start + 1
                while stop < len(order) and (
                    (stop + 1 - start) * (len(members[order[stop]]) + size) * size <= _NUMBERS
                ):
                    stop += 1
                part = order[start:stop]
                chosen = np.array([rows[k] for k in part])
                numbers = np.array([systems[i] for i in chosen])
                yield self._problems(chosen, numbers, [members[k] for k in part], compositions)
                start = stop

    def _problems(
        self,
        rows: np.ndarray,
        numbers: np.ndarray,
        members: list[list[int]],
        compositions: Sequence[Mapping[str, float]],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Mixtures]:
        """Problems of like size as arrays, and their lowest mixtures."""
        problems, n = numbers.shape
        names = symbols()
        target = np.array(
            [
                [compositions[row][names[z]] for z in system]
                for row, system in zip(rows, numbers.tolist(), strict=True)
            ],
            dtype=np.float64,
        )
        target /= target.sum(1, keepdims=True)
        lengths = np.array([len(found) for found in members])
        filled = np.arange(lengths.max(initial=0)) < lengths[:, None]
        places = np.zeros(filled.shape, dtype=np.int64)
        points = np.zeros((problems, n + filled.shape[1], n))
        energy = np.full(points.shape[:2], np.inf)
        points[:, np.arange(n), np.arange(n)] = 1.0
        energy[:, :n] = self._element_energy[numbers]
        if filled.any():
            places[filled] = np.fromiter(chain.from_iterable(members), np.int64)
            points[:, n:] = self._shares[places[:, :, None], numbers[:, None, :]]
            energy[:, n:] = np.where(filled, self._energy[places], np.inf)
        return rows, numbers, places, lowest_mixtures(target, points, energy)

    def _components(
        self, numbers: np.ndarray, places: np.ndarray, columns: np.ndarray, shares: np.ndarray
    ) -> tuple[Component, ...]:
        """The phases of a mixture with their shares, largest first."""
        n = len(numbers)
        found = []
        for column, share in zip(columns.tolist(), shares.tolist(), strict=True):
            if share <= _ABSENT:
                continue
            if column < n:
                symbol = symbols()[numbers[column]]
                phase = self._elements.get(symbol) or Phase.of(symbol, 0.0)
            else:
                phase = self._phases[places[column - n]]
            found.append((phase, share))
        moles = sum(share / phase.atoms for phase, share in found)
        made = [Component(phase, share, share / phase.atoms / moles) for phase, share in found]
        return tuple(sorted(made, key=lambda c: (-round(c.moles, 9), c.phase.formula)))


@lru_cache(maxsize=2)
def _shipped(name: str) -> Hull:
    """The hull of shipped references, read once."""
    phases, card = shipped_phases(name)
    pairs = [frozenset(pair.split("-")) for pair in card["pairs"].split()]
    return Hull(phases, card["functional"], name, pairs, corners=True)
