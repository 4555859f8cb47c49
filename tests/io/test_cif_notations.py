"""One crystal in many notations of a CIF, in every setting of spglib's database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.data import chemical_symbols
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.io import parse_cif
from recinet_ase.io.symmetry.operations import operations, same_atoms
from recinet_ase.io.symmetry.space_group import Statement, reading

HALL_NUMBERS = range(1, 531)


@lru_cache(maxsize=600)
def database(hall_number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotations and translations, from spglib."""
    found = spglib.get_symmetry_from_database(hall_number)
    return found["rotations"], found["translations"]


@lru_cache(maxsize=600)
def about(hall_number: int) -> Any:
    return spglib.get_spacegroup_type(hall_number)


def symbol(hall_number: int, short: bool = False) -> str:
    """The Hermann-Mauguin symbol of a setting, with its origin or axes where there are two."""
    group = about(hall_number)
    text = (group.international_short if short else group.international_full).replace("_", "")
    choice = group.choice[:1]
    return f"{text} :{choice}" if choice and choice in "12HR" else text


@lru_cache(maxsize=1)
def shared_symbols() -> set[str]:
    """Symbols of two settings each: their glide planes are called e."""
    named = Counter(map(symbol, HALL_NUMBERS))
    return {name for name, count in named.items() if count > 1}


def fraction(value: float) -> str:
    return str(Fraction(value).limit_denominator(24))


def triplet(rotation: np.ndarray, shift: np.ndarray, style: int = 0) -> str:
    """``-x+1/2,y,z``, in one of three ways of writing it."""
    rows = []
    for row, part in zip(rotation.tolist(), shift.tolist(), strict=True):
        turned = "".join(
            f"{'-' if n < 0 else '+'}{a}" for n, a in zip(row, "xyz", strict=True) if n
        )
        moved = fraction(part) if style < 2 else f"{part:.4f}"
        if moved in ("0", "0.0000"):
            rows.append(turned.removeprefix("+"))
        elif style == 1:
            rows.append(f"{moved}{turned}")
        else:
            rows.append(f"{turned.removeprefix('+')}+{moved}")
    return (", " if style else ",").join(rows).upper() if style == 2 else ",".join(rows)


@dataclass(frozen=True)
class Crystal:
    """Sites of a random crystal, its space group, and all of its atoms."""

    hall_number: int
    cellpar: np.ndarray
    numbers: tuple[int, ...]
    coords: np.ndarray
    atoms: Atoms


def all_atoms(
    hall_number: int, numbers: Sequence[int], coords: np.ndarray, cellpar: np.ndarray
) -> Atoms:
    """Every image of every site once, by looking at all pairs."""
    found: list[tuple[int, np.ndarray]] = []
    for number, site in zip(numbers, coords, strict=True):
        for rotation, shift in zip(*database(hall_number), strict=True):
            image = (rotation @ site + shift) % 1
            if not any(
                number == z and np.abs((image - other + 0.5) % 1 - 0.5).max() < 1e-4
                for z, other in found
            ):
                found.append((number, image))
    places = [x for _, x in found]
    return Atoms([z for z, _ in found], scaled_positions=places, cell=cellpar, pbc=True)


@st.composite
def crystals(draw: Callable[..., Any]) -> Crystal:
    """A cell of the group's shape with a few sites, some of them on special positions."""
    hall_number = draw(st.sampled_from(HALL_NUMBERS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rotations, shifts = database(hall_number)
    base = np.diag(rng.uniform(6, 9, 3)) + rng.uniform(-1.2, 1.2, (3, 3))
    metric = np.mean([r.T @ base @ base.T @ r for r in rotations], axis=0)
    lengths = np.sqrt(metric.diagonal())
    cosines = (metric / np.outer(lengths, lengths))[[1, 0, 0], [2, 2, 1]]
    cellpar = np.append(lengths, np.degrees(np.arccos(cosines)))
    coords = []
    for _ in range(draw(st.integers(1, 3))):
        site = rng.random(3)
        if draw(st.booleans()):  # onto what some operation leaves in its place
            k = int(rng.integers(len(rotations)))
            for _ in range(12):
                images = [site]
                for _ in range(6):
                    images.append(rotations[k] @ images[-1] + shifts[k])
                near = [x - np.round(x - site) for x in images]
                site = np.mean(near, axis=0)
            if np.abs((rotations[k] @ site + shifts[k] - site + 0.5) % 1 - 0.5).max() > 1e-9:
                site = rng.random(3)
        coords.append(site)
    numbers = tuple(rng.choice([3, 8, 14, 26, 56], len(coords), replace=False).tolist())
    atoms = all_atoms(hall_number, numbers, np.array(coords), cellpar)
    if len(atoms) > 1:
        distances = atoms.get_all_distances(mic=True) + 9 * np.eye(len(atoms))
        assume(distances.min() > 0.5)
    return Crystal(hall_number, cellpar, numbers, np.array(coords), atoms)


NAMES = (
    *("_cell_length_a", "_cell_length_b", "_cell_length_c"),
    *("_cell_angle_alpha", "_cell_angle_beta", "_cell_angle_gamma"),
)


def cif(crystal: Crystal, symmetry: str, formula: bool = False, every: bool = False) -> str:
    """The crystal as a CIF.

    Args:
        crystal: What is written.
        symmetry: The lines about its symmetry.
        formula: State formula and Z.
        every: List all atoms of the cell.
    """
    lines = ["data_test"]
    lines += [f"{n} {x:.6f}(3)" for n, x in zip(NAMES, crystal.cellpar, strict=True)]
    if formula:
        counts = crystal.atoms.symbols.formula.count()
        stated = " ".join(f"{s}{n}" for s, n in counts.items())
        lines += [f"_chemical_formula_sum '{stated}'", "_cell_formula_units_Z 1"]
    lines += [symmetry, "loop_"]
    lines += [f"_atom_site_{x}" for x in ("label", "type_symbol", "fract_x", "fract_y", "fract_z")]
    numbers, coords = crystal.numbers, crystal.coords
    if every:
        numbers, coords = crystal.atoms.numbers, crystal.atoms.get_scaled_positions()
    for i, (z, x) in enumerate(zip(numbers, coords, strict=True)):
        name = chemical_symbols[z]
        lines.append(f"{name}{i} {name}2+ {x[0]:.6f} {x[1]:.6f}(2) {x[2]:.6f}")
    return "\n".join([*lines, ""])


def loop(tag: str, triplets: Sequence[str]) -> str:
    return "\n".join(["loop_", tag, *(f"'{text}'" for text in triplets)])


def assert_read(text: str, crystal: Crystal) -> None:
    atoms = parse_cif(text)
    np.testing.assert_allclose(atoms.cell.cellpar(), crystal.cellpar, atol=1e-4)
    pairs = [(a.numbers, a.get_scaled_positions()) for a in (atoms, crystal.atoms)]
    assert same_atoms(*pairs, crystal.atoms.cell.array), (
        atoms.get_chemical_formula(),
        crystal.atoms.get_chemical_formula(),
    )


def written_operations(crystal: Crystal, style: int, seed: int) -> list[str]:
    pairs = zip(*database(crystal.hall_number), strict=True)
    texts = [triplet(rotation, shift, style) for rotation, shift in pairs]
    return [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]


@settings(max_examples=25, deadline=None)
@given(crystals(), st.integers(0, 2), st.integers(0, 99))
def test_any_crystal_with_its_operations(crystal: Crystal, style: int, seed: int) -> None:
    triplets = written_operations(crystal, style, seed)
    new, old = "_space_group_symop_operation_xyz", "_symmetry_equiv_pos_as_xyz"
    group = about(crystal.hall_number)
    for text in (
        loop(new, triplets),
        loop(old.upper(), triplets),
        loop("_space_group_symop.operation_xyz", triplets),
        loop(old, triplets) + "\n_symmetry_space_group_name_H-M ?\n_symmetry_Int_Tables_number .",
        loop(new, triplets) + f"\n_space_group_IT_number {group.number}",
        loop(new, triplets) + f"\n_space_group_name_H-M_alt '{symbol(crystal.hall_number)}'",
        loop(new, triplets) + f"\n_space_group_name_Hall\n;{group.hall_symbol}\n;",
        loop(new, triplets) + f'\n_space_group_name_Hall "{group.hall_symbol}"',
    ):
        assert_read(cif(crystal, text), crystal)
    plain = [text.lower().replace(" ", "") for text in triplets]
    magnetic = [f"{text},{'+1' if i % 2 else '-1'}" for i, text in enumerate(plain)]
    text = loop("_space_group_symop_magn_operation.xyz", magnetic)
    assert_read(cif(crystal, f"_space_group_magn.number_BNS 1.1\n{text}"), crystal)


@settings(max_examples=25, deadline=None)
@given(crystals())
def test_any_crystal_without_operations(crystal: Crystal) -> None:
    group = about(crystal.hall_number)
    assume(symbol(crystal.hall_number) not in shared_symbols())
    name, number = symbol(crystal.hall_number), f"_symmetry_Int_Tables_number {group.number}"
    for text in (
        f"_space_group_name_Hall\n;{group.hall_symbol}\n;",
        f"_symmetry_space_group_name_H-M '{name}'",
        f"_space_group_name_H-M_alt '{name.replace(' ', '')}'\n{number}",
        f"{number}\n_space_group_name_Hall\n;{group.hall_symbol}\n;\n"
        f"_symmetry_space_group_name_H-M '{name}'",
    ):
        assert_read(cif(crystal, text), crystal)
    identity = loop("_space_group_symop_operation_xyz", ["x,y,z"])
    for text in ("", identity, "_symmetry_Int_Tables_number 1", "_space_group_name_Hall 'P 1'"):
        assert_read(cif(crystal, text, every=True), crystal)


STANDARD = {}
for _n in HALL_NUMBERS:
    STANDARD.setdefault(spglib.get_spacegroup_type(_n).number, _n)


@settings(max_examples=20, deadline=None)
@given(crystals())
def test_a_number_means_the_standard_setting(crystal: Crystal) -> None:
    """Of two origins, the one that makes the stated formula; or a refusal."""
    group = about(crystal.hall_number)
    settings_of_it = {STANDARD[group.number]}
    if group.choice[:1] == "2":
        settings_of_it.add(STANDARD[group.number] + 1)
    assume(crystal.hall_number in settings_of_it and group.choice[:1] not in ("c", "a", "-"))
    text = cif(crystal, f"_space_group_IT_number {group.number}", formula=True)
    try:
        assert_read(text, crystal)
    except StructureError as error:
        assert "leaves open which origin is meant" in str(error)
        assert group.choice[:1] in ("1", "2")


def test_every_symbol_of_spglib_is_its_setting() -> None:
    assert all("e" in name for name in shared_symbols()) and len(shared_symbols()) < 20
    for hall_number in HALL_NUMBERS:
        rotations, shifts = database(hall_number)
        wanted = operations(
            tuple(triplet(r, t) for r, t in zip(rotations, shifts, strict=True))
        ).key
        base = np.diag([5.0, 6.0, 7.0]) + 0.3
        metric = np.mean([r.T @ base @ base.T @ r for r in rotations], axis=0)
        lattice = np.linalg.cholesky(metric)
        for statement in (
            Statement(symbols=(symbol(hall_number),)),
            Statement(hall=about(hall_number).hall_symbol),
        ):
            if shared_symbols().intersection(statement.symbols):
                continue
            found = reading(statement, lattice)
            assert [group.key for group in found.choices] == [wanted], (hall_number, statement)


# What contradicts itself, or leaves something open


SALT = """data_x
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{}
"""
SITES = "Na1 Na 0 0 0\nCl1 Cl 0.5 0.5 0.5"
ALL_SITES = "\n".join(
    f"{s} {s} {x} {y} {z}"
    for x in (0, 0.5)
    for y in (0, 0.5)
    for z in (0, 0.5)
    for s in [("Na", "Cl")[int(2 * (x + y + z)) % 2]]
)
FM3M = "_space_group_name_H-M_alt 'F m -3 m'"
P1 = "loop_\n_space_group_symop_operation_xyz\nx,y,z"


def test_statements_that_contradict_each_other_are_refused() -> None:
    for text, reason in (
        (f"{P1}\n{FM3M}", "the symmetry operations and the space group symbol 'F m -3 m'"),
        (f"{P1}\n_space_group_IT_number 225", "operations and the space group number 225"),
        (f"_space_group_name_Hall '-P 4 2 3'\n{FM3M}", "Hall symbol '-P 4 2 3' and the space"),
        (f"{FM3M}\n_space_group_IT_number 221", "'F m -3 m' and the space group number 221"),
        ("_space_group_IT_number 225\n_symmetry_Int_Tables_number 221", "contradicts itself"),
        ("_space_group_IT_number 0", "no space group of the number 0"),
        ("_space_group_name_H-M_alt 'F q -3 m'", "'F q -3 m' is not known"),
        ("_space_group_name_H-M_alt 'P 63/m m c'", "the cell does not have the symmetry"),
        ("_space_group_name_Hall 'F nonsense'", "Hall symbol 'F nonsense' cannot be understood"),
        ("loop_\n_space_group_symop_operation_xyz\nx,y,z\n-x,y", "'-x,y' cannot be understood"),
        ("loop_\n_space_group_symop_operation_xyz\nx,y,z\ny,z,x", "operations are no group"),
        ("_space_group_magn.number_BNS '225.116'", "without its operations"),
        ("_cell_wave_vector_seq_id 1", "modulated"),
    ):
        with pytest.raises(ReciNetError, match=reason):
            parse_cif(SALT.format(text, SITES))


def test_statements_that_make_the_same_crystal_do_not_contradict() -> None:
    """All atoms are listed, and the symbol is told besides."""
    for text in (P1, FM3M, f"{P1}\n{FM3M}", f"{P1}\n_space_group_IT_number 225"):
        atoms = parse_cif(SALT.format(text, ALL_SITES))
        assert atoms.symbols.formula.count() == {"Na": 4, "Cl": 4}


def test_an_open_origin() -> None:
    """Spinel's cations change places with the origin: only the formula tells."""
    spinel = SALT.replace("5.64", "8.08")
    sites = "Mg1 Mg .125 .125 .125\nAl1 Al .5 .5 .5\nO1 O .2624 .2624 .2624"
    fd3m = "_space_group_name_H-M_alt 'F d -3 m'"
    with pytest.raises(ReciNetError, match="leaves open which origin is meant"):
        parse_cif(spinel.format(fd3m, sites))
    for formula, wanted in (("Al2 Mg O4", (16, 8)), ("Al Mg2 O4", (8, 16))):
        atoms = parse_cif(spinel.format(f"{fd3m}\n_chemical_formula_sum '{formula}'", sites))
        counts = atoms.symbols.formula.count()
        assert (counts["Al"], counts["Mg"]) == wanted
    for choice, wanted in (("2", 16), ("1", 8), ("Z", 16), ("S", 8)):
        atoms = parse_cif(spinel.format(f"{fd3m[:-1]} :{choice}'", sites))
        assert atoms.symbols.formula.count()["Al"] == wanted


def test_sites_that_are_no_single_atom() -> None:
    head = SALT.replace("_atom_site_fract_z\n", "_atom_site_fract_z\n_atom_site_occupancy\n")
    for site, reason in (
        ("Na1 Na 0 0 0 0.5", "^disordered: Na1 has the occupancy 0.5"),
        ("Na1 Na 0 0 0 1.00(2)\nCl1 Cl 0 0 0 ?", "^disordered: Na1 and Cl1 share a position"),
        ("Na1 'Na0.5K0.5' 0 0 0 1", "^disordered: Na1 is of the type"),
        ("Na1 Na+K 0 0 0 1", "^disordered"),
        ("W1 H2O 0 0 0 1", "^disordered"),
        ("C1 CN 0 0 0 1", "^disordered: C1 is of the type 'CN', a mixture or a group"),
        ("O1 OH 0 0 0 1", "^disordered: O1 is of the type 'OH'"),
        ("Q1 Uuo 0 0 0 1", "^Q1 is of the type 'Uuo', which is no element"),
        ("O2 O2 0 0 0 1", "^disordered"),
        ("X1 X 0 0 0 1", "no element"),
        ("Na1 Na 0 0 0 -1", "occupancy -1"),
        ("Na1 Na 0 0 0 1.5", "occupancy 1.5"),
        ("OW1 ? 0 0 0 1", "'OW1' does not tell an element"),
        ("Na1 Na 0 ? 0 1", "not given"),
        ("Na1 Na 0 a 0 1", "no numbers"),
        ("Na1 Na 0 0 0 0", "has no atoms"),
        ("Na1 Na 0.0106 0 0 1\nNa2 Na 0.5 0.5 0.53 1", "special position"),
    ):
        with pytest.raises(ReciNetError, match=reason):
            parse_cif(head.format(FM3M, site))
    for site in (
        "Na1 Na 0 0 0 .",
        "Na1 ? 0 0 0 1.0(1)",
        "Na1 NA1+ 1e-3 0 0 .9999",
        "D1 D 0 0 0 1",
    ):
        assert len(parse_cif(head.format(FM3M, site))) == 4
    assert parse_cif(head.format(FM3M, "D1 D 0 0 0 1")).symbols[0] == "H"


def test_hydrogens_without_positions_are_missed() -> None:
    head = SALT.replace(
        "_atom_site_fract_z\n", "_atom_site_fract_z\n_atom_site_attached_hydrogens\n"
    )
    assert len(parse_cif(head.format(FM3M, "O1 O 0 0 0 0"))) == 4
    with pytest.raises(ReciNetError, match="attached_hydrogens"):
        parse_cif(head.format(FM3M, "O1 O 0 0 0 2"))


def test_macromolecular_files() -> None:
    head = (
        SALT.replace("_fract_", ".Cartn_")
        .replace("_atom_site_", "_atom_site.")
        .replace("_cell_", "_cell.")
    )
    text = head.format("_symmetry.space_group_name_H-M 'F m -3 m'", "Na1 NA 0 0 0\nCl1 CL 2.82 0 0")
    assert parse_cif(text).symbols.formula.count() == {"Na": 4, "Cl": 4}


def test_syntax_errors_name_their_line() -> None:
    with pytest.raises(ReciNetError, match=r"the CIF cannot be parsed \(line 8: "):
        parse_cif(SALT.format("_x 1 2", SITES))
    with pytest.raises(ReciNetError, match="no line that begins with data_"):
        parse_cif("<html>")
    with pytest.raises(ReciNetError, match="holds several structures"):
        parse_cif(SALT.format("", SITES) * 2)


@given(st.text("xyz+-/,0123456789. ", max_size=12))
@example("x,y,z+1/0")
@example("x,y,zz")
def test_any_text_is_an_operation_or_refused(text: str) -> None:
    try:
        group = operations((text,))
    except StructureError:
        return
    assert group.rotations.shape == (1, 3, 3)
