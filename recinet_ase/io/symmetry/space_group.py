"""Which symmetry a file states: by operations, a Hall symbol, a Hermann-Mauguin symbol, a number.

The first of these counts; the others must not contradict it. Tables: gemmi's 564 settings
(International Tables A and B), and spglib's full symbols.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from recinet_ase.errors import StructureError
from recinet_ase.io.symmetry.operations import Operations, operations

if TYPE_CHECKING:
    import gemmi

_CHOICE = re.compile(r"\s*(?::\s*([12HhRrSsZz])|[Oo]([12])|\s([HR])|([SZ]))\s*$")
_NUMBERED = re.compile(r"\(\s*(?:no\.?\s*\d+|\d{3})\s*\)\s*$", re.IGNORECASE)
_ORIGINS = {"S": "1", "Z": "2"}  # as the Inorganic Crystal Structure Database names them


@dataclass(frozen=True)
class Statement:
    """What a file says about its space group; whatever it does not say is empty.

    Attributes:
        operations: Triplets such as ``-x,y+1/2,z``.
        hall: Hall symbol.
        symbols: Hermann-Mauguin symbols.
        number: Number in the International Tables.
    """

    operations: tuple[str, ...] = ()
    hall: str = ""
    symbols: tuple[str, ...] = ()
    number: int | None = None


@dataclass(frozen=True)
class Reading:
    """How a statement can be understood in a given cell.

    Attributes:
        source: What it was taken from, for messages.
        choices: Possible groups: one, or one for each origin where that is not stated.
        rivals: Statements that contradict them, and the groups that those mean.
    """

    source: str
    choices: tuple[Operations, ...]
    rivals: tuple[tuple[str, tuple[Operations, ...]], ...] = ()


@dataclass(frozen=True)
class _Meaning:
    text: str
    settings: tuple[tuple[str, Operations], ...]  # name of the setting, and its group
    number: int | None = None  # where only the type of the group is stated


P1 = ("x,y,z",)


def reading(statement: Statement, lattice: np.ndarray) -> Reading:
    """The group that a file states.

    Args:
        statement: What the file says. Nothing at all is taken for P 1: every atom is listed.
        lattice: Lattice vectors as rows, ``[3, 3]``; they tell axes apart that a symbol or
            number leaves open.

    Raises:
        StructureError: If a statement cannot be understood, or does not fit the cell.
    """
    meanings = _meanings(statement)
    top = meanings[0]
    fitting = [(name, group) for name, group in top.settings if group.fits(lattice)]
    if not fitting:
        raise StructureError(f"the cell does not have the symmetry of {top.text}")
    if top.number is not None and fitting[0][0] != top.settings[0][0]:
        names = list(dict.fromkeys(name for name, _ in fitting))
        if len(names) > 1:
            raise StructureError(
                f"{top.text} has several settings in this cell ({', '.join(names)}); state the "
                "symbol or the operations"
            )
    choices = [group for name, group in fitting if name == fitting[0][0]]
    rivals = []
    for meaning in meanings[1:]:
        agreed = [group for group in choices if _agrees(group, meaning, lattice)]
        if agreed:
            choices = agreed
        else:
            rivals.append((meaning.text, tuple(group for _, group in meaning.settings)))
    return Reading(top.text, tuple(choices), tuple(rivals))


def _agrees(group: Operations, meaning: _Meaning, lattice: np.ndarray) -> bool:
    if any(group.key == other.key for _, other in meaning.settings):
        return True
    fits = any(other.fits(lattice) for _, other in meaning.settings)
    if meaning.number is None and fits:
        return False
    # A number, or a symbol that is not meant for this choice of cell, states the type.
    number = meaning.number or _type(meaning.settings[0][1])
    return _type(group) == number


@lru_cache(maxsize=1024)
def _meanings(statement: Statement) -> tuple[_Meaning, ...]:
    """What each part of a statement can mean, the one that counts first."""
    meanings = []
    if statement.operations:
        group = operations(statement.operations)
        group.products  # noqa: B018 - raises where they are no group
        meanings.append(_Meaning("the symmetry operations", (("", group),)))
    if statement.hall:
        meanings.append(
            _Meaning(f"the Hall symbol {statement.hall!r}", (("", _hall(statement.hall)),))
        )
    for symbol in statement.symbols:
        settings = _settings(symbol)
        if settings:
            meanings.append(_Meaning(f"the space group symbol {symbol!r}", settings))
    if statement.symbols and not meanings:
        raise StructureError(
            f"the space group symbol {statement.symbols[0]!r} is not known; state the symmetry "
            "operations"
        )
    if statement.number is not None:
        settings = _numbered(statement.number)
        text = f"the space group number {statement.number}"
        meanings.append(_Meaning(text, settings, statement.number))
    if not meanings:
        meanings.append(_Meaning("the triclinic group P 1", (("P 1", operations(P1)),)))
    return tuple(meanings)


@lru_cache(maxsize=1024)
def _hall(symbol: str) -> Operations:
    import gemmi

    try:
        group = gemmi.symops_from_hall(symbol)
    except Exception as error:
        raise StructureError(f"the Hall symbol {symbol!r} cannot be understood ({error})") from None
    return operations(tuple(op.triplet() for op in group))


def _settings(symbol: str) -> tuple[tuple[str, Operations], ...]:
    """The groups that a Hermann-Mauguin symbol can mean, none if it is not known."""
    text = _NUMBERED.sub("", symbol.strip())
    match = _CHOICE.search(text)
    choice = next(filter(None, match.groups()), "").upper() if match else ""
    base = text[: match.start()] if match else text
    base = re.sub(r"\((\d)\)|_", r"\1", base)
    settings = _by_name().get(_plain(base))
    if settings is None:
        import gemmi

        known = gemmi.find_spacegroup_by_name(base)
        if known is None:
            return ()
        settings = _by_name()[_plain(known.hm)]
    choice = _ORIGINS.get(choice, choice)
    if choice and any(setting.ext in "12HR" for setting in settings):
        settings = [setting for setting in settings if setting.ext == choice]
    return tuple((setting.hm, _hall(setting.hall)) for setting in settings)


def _plain(symbol: str) -> str:
    return "".join(symbol.split()).lower()


@lru_cache(maxsize=1)
def _by_name() -> dict[str, list[gemmi.SpaceGroup]]:
    """Settings by their names without blanks: in full, and short where no axis is left open."""
    import gemmi
    import spglib

    names: dict[str, list[gemmi.SpaceGroup]] = {}
    halls: dict[str, gemmi.SpaceGroup] = {}
    for setting in gemmi.spacegroup_table():
        short = re.sub(r" 1\b(?!/)", "", setting.hm) if 3 <= setting.number <= 15 else setting.hm
        for name in {_plain(setting.hm), _plain(short)}:
            names.setdefault(name, []).append(setting)
        halls.setdefault(setting.hall, setting)
    for hall_number in range(1, 531):
        about = spglib.get_spacegroup_type(hall_number)
        setting = halls[about.hall_symbol]
        short, full = (
            _plain(text.replace("_", ""))
            for text in (about.international_short, about.international_full)
        )
        # Two settings share a name where their glide planes are called e.
        for name in {full, short} if "e" in short else {full}:
            if setting not in names.setdefault(name, []):
                names[name].append(setting)
    return names


@lru_cache(maxsize=256)
def _numbered(number: int) -> tuple[tuple[str, Operations], ...]:
    """All settings of a number, that of the International Tables first."""
    import gemmi

    if not 1 <= number <= 230:
        raise StructureError(f"there is no space group of the number {number} (1 to 230)")
    settings = [setting for setting in gemmi.spacegroup_table() if setting.number == number]
    standard = next(setting.hm for setting in settings if setting.is_reference_setting())
    settings.sort(key=lambda setting: setting.hm != standard)
    return tuple((setting.hm, _hall(setting.hall)) for setting in settings)


_types: dict[frozenset[tuple[int, ...]], int] = {}


def _type(group: Operations) -> int:
    """Number of a group's type, 0 if spglib cannot tell."""
    import spglib

    if group.key not in _types:
        try:
            known = spglib.get_spacegroup_type_from_symmetry(group.rotations, group.shifts)
        except Exception:
            known = None
        _types[group.key] = known.number if known is not None else 0
    return _types[group.key]
