"""Conditions, order, Pareto front and duplicates of a shortlist."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from hypothesis import given
from hypothesis import strategies as st

from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.screening.selection.expression import Expression
from recinet_ase.screening.selection.misses import rejections
from recinet_ase.screening.selection.pareto import pareto_front
from recinet_ase.screening.selection.selection import Selection, parse_keys
from recinet_ase.screening.selection.table import ListTable
from recinet_ase.screening.selection.unique import fingerprint

ENDS = ("", "_low", "_high")
NUMBERS = [f"{name}{end}" for name in ("bandgap", "ehull") for end in ENDS]
COLUMNS = ["id", "formula", "natoms", *NUMBERS, "in_domain", "error"]
UNITS = {"natoms": "", **{n: "eV" if n.startswith("b") else "eV/atom" for n in NUMBERS}}


def row(name: str, formula: str, gap: Any, hull: Any, inside: bool | None = True) -> dict[str, Any]:
    """A result row whose intervals are (value, half-width)."""
    numbers: dict[str, Any] = {}
    for key, value in (("bandgap", gap), ("ehull", hull)):
        middle, half = value if isinstance(value, tuple) else (value, 0.1)
        numbers[key] = middle
        numbers[f"{key}_low"] = None if middle is None else middle - half
        numbers[f"{key}_high"] = None if middle is None else middle + half
    natoms = len(formula) or None
    return {"id": name, "formula": formula, "natoms": natoms, **numbers, "in_domain": inside,
            "error": "" if gap is not None else "no band gap"}  # fmt: skip


ROWS = [
    row("a", "ClNa", 5.0, 0.01),
    row("b", "LiF", None, 0.01, None),
    row("c", "", None, None, None),
    row("d", "Li2O", (1.5, 0.4), (0.0, 0.04)),
    row("e", "Si", (1.5, 0.6), (0.0, 0.04)),
    row("f", "GaAs", (1.5, 0.1), (0.0, 0.01), False),
]
TABLE = ListTable(COLUMNS, ROWS, UNITS)


def passing(where: str, confident: bool = False) -> str:
    found = Selection(where=where, confident=confident).indices(TABLE)
    return "".join(TABLE.column("id")[found])


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("bandgap > 1 and bandgap < 2 and ehull < 0.05", "def"),
        ("1 < gap < 2 and not e_above_hull >= 0.05", "def"),  # aliases, chains
        ("bandgap > 2", "a"),
        ("not bandgap > 2", "def"),  # a missing gap is not a small one
        ("bandgap > 2 or ehull < 0.05", "abdef"),
        ("bandgap != 5", "def"),
        ("bandgap - 10 * ehull >= 1.5 * max(1, bandgap / 2)", "adef"),
        ("abs(gap - 1.4) < 0.2", "def"),
        ("1 / ehull > 50", "ab"),  # division by zero is missing
        ("'Li' in elements", "bd"),
        ("not has('Li')", "aef"),
        ("has('Ga', 'As') and nelements == 2", "f"),
        ("formula in ('Si', 'LiF')", "be"),
        ("formula not in ('Si', 'LiF')", "adf"),
        ("'band gap' in error", "bc"),
        ("in_domain", "ade"),
        ("not in_domain", "f"),
        ("in_domain == False", "f"),
        ("natoms in (2, 4)\n or id == 'b'", "abdef"),
    ],
)
def test_where(where: str, ids: str) -> None:
    assert passing(where) == ids


def test_confident_takes_the_unfavourable_end() -> None:
    where = "bandgap > 1 and bandgap < 2 and ehull < 0.05"
    assert passing(where) == "def"
    assert passing(where, confident=True) == "d"  # e: 0.9 to 2.1 eV; f: outside the domain
    assert passing("not (bandgap <= 1 or bandgap >= 2)", confident=True) == "d"
    assert passing("2 - bandgap > 0 and -bandgap < -1", confident=True) == "d"
    assert passing("abs(bandgap - 1.5) < 0.45", confident=True) == "d"
    assert passing("bandgap * bandgap / 2 < 2", confident=True) == "d"
    assert passing("bandgap == 1.5", confident=True) == ""
    assert passing("bandgap != 1.5 and natoms > 1", confident=True) == "a"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("bandgpa > 1", "character 1, 'bandgpa': unknown column 'bandgpa'; did you mean 'bandgap'"),
        ("gap > 1 and kv > 3", "character 13, 'kv': bulk_modulus is not predicted here; add it to"),
        ("gap = 1", "write '==' to compare"),
        ("gap > 1 && ehull < 1", "write 'and'"),
        ("(gap > 1) & (ehull < 1)", "use 'and' and parentheses, not '&'"),
        ("gap", "this is a number, where a condition is needed"),
        ("gap > 1 and ehull", "character 13, 'ehull': this is a number"),
        ("gap > '1'", "a number cannot be compared with a text"),
        ("has('li')", "'li' is no chemical symbol; did you mean 'Li'"),
        ("'C' in formula", "write 'C' in elements"),
        ("__import__('os').system('true')", "can be called"),
        ("open('x') == 1", "unknown function 'open'"),
        ("gap.real > 1", "'gap.real': this is not allowed"),
        ("(lambda: 1)() > 0", "can be called"),
        ("[x for x in id]", "not allowed"),
        ("gap ** 9 > 1", "powers are not known"),
        ("gap > 1e999", "too large"),
        ("gap > 1 / 0", "division by zero"),
        ("-" * 60 + "gap > 1", "nested more than 40"),
        ("(" * 500, "something must follow"),
        ("gap > 1\0", "cannot be read"),
        ("gap > " + "1" * 3000, "3006 characters"),
        ("", "empty"),
    ],
)
def test_a_bad_condition_is_explained_before_any_work(where: str, message: str) -> None:
    with pytest.raises(ReciNetError, match=".*") as caught:
        Selection(where=where).check(COLUMNS, UNITS)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_units_are_shown() -> None:
    text = "gap > 1 and 0 <= e_hull < .05 and abs(gap - 1.4) < 0.3 and natoms < 9"
    assert Expression(text, COLUMNS, UNITS).explain() == (
        "bandgap > 1 eV and 0 eV/atom <= ehull < .05 eV/atom and abs(bandgap - 1.4) < 0.3 eV "
        "and natoms < 9"
    )
    selection = Selection("gap>1", True, ("-bandgap",), 5, ("ehull", "-gap"), "fingerprint")
    assert selection.explain(COLUMNS, UNITS) == [
        "where bandgap>1 eV on the whole 90 % interval, inside the domain",
        "Pareto front of smallest ehull, largest bandgap",
        "sorted by bandgap (descending)",
        "one of each structure, by mean distances to neighbours of each element",
        "the first 5",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"confident": True}, "give a condition"),
        ({"top": 0}, "--top must be 1 or more"),
        ({"sort": ("-bandgpa",)}, "--sort: unknown column 'bandgpa'; did you mean 'bandgap'"),
        ({"pareto": ("formula",)}, "formula is no number"),
        ({"pareto": ("ehull", "-ehull")}, "twice"),
        ({"unique": "fingerprnt"}, "did you mean 'fingerprint'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ReciNetError, match=message):
        Selection(**settings).check(COLUMNS, UNITS)


def test_confident_needs_intervals() -> None:
    columns = ["id", "formula", "natoms", "bandgap", "error"]
    with pytest.raises(ReciNetError, match="needs intervals of bandgap; ask for --intervals"):
        Selection("bandgap > 1", confident=True).check(columns, {"bandgap": "eV"})
    with pytest.raises(ReciNetError, match="no intervals of bandgap"):
        Selection("gap_low > 1").check(columns, {"bandgap": "eV"})
    rows = [{**ROWS[0], "bandgap_low": None, "bandgap_high": None}]
    with pytest.raises(ReciNetError, match="its model has no calibration"):
        Selection("bandgap > 1", confident=True).indices(ListTable(COLUMNS, rows, UNITS))


def test_columns_of_several_models() -> None:
    names = [f"bulk_modulus[{m}]{e}" for m in ("a-1", "b") for e in ("", "_low", "_high")]
    columns = ["id", "formula", *names, "in_domain", "error"]
    rows = [
        {"id": str(k), "formula": "MgO", "in_domain": True, "error": ""}
        | {n: 100.0 * (k + ("[b]" in n)) for n in names}
        for k in range(3)
    ]
    table = ListTable(columns, rows, dict.fromkeys(names, "GPa"))
    for where, kept in (
        ("bulk_modulus[a-1] > 50", [1, 2]),
        ("kv[ a-1 ] + 1 > kv_low[a-1] and bulk_modulus_high[b] < 250", [0, 1]),
    ):
        for confident in (False, True):
            assert Selection(where, confident).indices(table).tolist() == kept
    assert Selection("kv[a-1] > 50").explain(columns, table.units) == [
        "where bulk_modulus[a-1] > 50 GPa"
    ]
    assert Selection(sort=("-kv[a-1]",)).indices(table).tolist() == [2, 1, 0]
    with pytest.raises(ReciNetError, match="several models give bulk_modulus; say which"):
        Selection("kv > 50").check(columns, table.units)
    told = rejections(table, Selection("1 > kv[a-1] > 0")).parts
    assert told == (("1 > kv[a-1]", 2), ("kv[a-1] > 0", 1))


def test_a_variant_answers_for_its_property() -> None:
    table = ListTable(["id", "bandgap_opt"], [{"id": "a", "bandgap_opt": 2.0}])
    assert list(Selection("gap > 1", sort=("-bandgap",)).indices(table)) == [0]
    with pytest.raises(UnknownNameError):
        Selection("nelements > 1").check(table.columns, table.units)


# Against plain Python, on random tables.

values = st.one_of(
    st.none(), st.integers(-3, 3).map(float), st.floats(-5, 5, allow_subnormal=False)
)


@st.composite
def tables(draw: Any) -> ListTable:
    count = draw(st.integers(0, 12))
    rows = []
    for i in range(count):
        gap, hull = draw(values), draw(values)
        halves = [draw(st.floats(0, 2)) for _ in range(2)]
        inside = draw(st.sampled_from([True, False, None]))
        formula = draw(st.sampled_from(["", "LiF", "Si", "ClNa", "Li2O"]))
        rows.append(row(str(i), formula, (gap, halves[0]), (hull, halves[1]), inside))
    return ListTable(COLUMNS, rows, UNITS)


numbers = st.recursive(
    st.sampled_from(["bandgap", "ehull", "natoms", "1", "0.5", "2"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, inner).map(lambda t: f"max({t[0]}, {t[1]})"),
        inner.map(lambda t: f"abs({t})"),
        inner.map(lambda t: f"(-{t})"),
        inner.map(lambda t: f"({t} / 2)"),
    ),
    max_leaves=5,
)
comparisons = st.tuples(numbers, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), numbers)
conditions = st.recursive(
    comparisons.map(" ".join),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda t: f"({t[0]}) {t[1]} ({t[2]})"
        ),
        inner.map(lambda t: f"not ({t})"),
    ),
    max_leaves=4,
)


def by_python(condition: str, entry: dict[str, Any]) -> bool:
    """Whether the row passes whatever its missing values are, found by trying extreme ones."""
    unknown = [k for k in ("bandgap", "ehull", "natoms") if entry[k] is None and k in condition]
    assert not unknown
    return bool(eval(condition, {"max": max, "abs": abs}, entry))


@given(tables(), conditions)
def test_where_is_what_python_says_of_each_row(table: ListTable, condition: str) -> None:
    mask = Expression(condition, COLUMNS, UNITS).mask(table)
    simple = " and " not in condition and " or " not in condition
    for passed, entry in zip(mask, table.rows(), strict=True):
        missing = [k for k in ("bandgap", "ehull", "natoms") if entry[k] is None and k in condition]
        if not missing:
            assert passed == by_python(condition, entry)
        elif simple:
            assert not passed


@given(tables(), conditions, st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_confident_passes_only_what_passes_anywhere_in_the_interval(
    table: ListTable, condition: str, place: list[float]
) -> None:
    expression = Expression(condition, COLUMNS, UNITS)
    confident = expression.mask(table, confident=True)
    assert not (confident & ~expression.mask(table)).any()
    for passed, entry in zip(confident, table.rows(), strict=True):
        if not passed:
            continue
        assert entry["in_domain"]
        inside = dict(entry)
        for key, at in zip(("bandgap", "ehull"), place, strict=True):
            if entry[key] is not None:
                low, high = entry[f"{key}_low"], entry[f"{key}_high"]
                inside[key] = min(max(low + at * (high - low), low), high)
        if all(inside[k] is not None for k in ("bandgap", "ehull", "natoms") if k in condition):
            assert by_python(condition, inside)


@given(tables(), st.lists(st.sampled_from(["bandgap", "ehull", "formula"]), max_size=3), st.data())
def test_sort_is_pythons(table: ListTable, names: list[str], data: Any) -> None:
    keys = tuple(f"{'-' if data.draw(st.booleans()) else ''}{name}" for name in names)
    expected = list(range(len(table)))
    entries = list(table.rows())
    for key in reversed(keys):
        name = key.lstrip("-")
        known = [i for i in expected if entries[i][name] not in (None, "")]
        missing = [i for i in expected if i not in known]
        known.sort(key=lambda i: entries[i][name], reverse=key.startswith("-"))
        expected = known + missing
    assert list(Selection(sort=keys).indices(table)) == expected


points = st.integers(1, 4).flatmap(
    lambda d: st.lists(
        st.lists(st.one_of(st.integers(0, 4).map(float), st.just(math.nan)), min_size=d, max_size=d)
    )
)


@given(points)
def test_pareto_is_brute_force(rows: list[list[float]]) -> None:
    costs = np.array(rows).reshape(len(rows), len(rows[0]) if rows else 1)
    expected = [
        not np.isnan(p).any() and not any((q <= p).all() and (q < p).any() for q in costs)
        for p in costs
    ]
    assert pareto_front(costs).tolist() == expected


@pytest.mark.parametrize("objectives", [2, 3])
def test_pareto_of_a_million_rows(objectives: int) -> None:
    rng = np.random.default_rng(0)
    cloud = rng.random((1_000_000, objectives))
    sphere = np.abs(rng.normal(size=(200_000, objectives)))
    sphere /= np.linalg.norm(sphere, axis=1, keepdims=True)
    start = time.process_time()
    few, many = pareto_front(cloud), pareto_front(-sphere)
    assert time.process_time() - start < 30
    assert 5 < few.sum() < 1000 and many.mean() > 0.99


def test_order_of_the_steps() -> None:
    selection = Selection("bandgap > 1", pareto=("ehull", "-bandgap"), sort=("-bandgap",), top=3)
    assert "".join(TABLE.column("id")[selection.indices(TABLE)]) == "ade"
    assert parse_keys(" ehull, -bandgap,") == ("ehull", "-bandgap") and parse_keys(None) == ()
    assert not Selection() and Selection(top=1)


# Duplicates


def descriptions(atoms: Atoms) -> list[Atoms]:
    """The same crystal, told differently."""
    turned = atoms.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    shifted = atoms.copy()
    shifted.positions += (0.3, 0.4, -1.7)
    shifted.wrap()
    sheared = make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [0, 2, 1]])
    return [turned, shifted, sheared, atoms * (2, 1, 1), atoms[::-1]]


def table_of(structures: list[Atoms | Exception]) -> ListTable:
    rows = [
        {"id": str(i), "formula": "" if isinstance(a, Exception) else a.get_chemical_formula()}
        for i, a in enumerate(structures)
    ]
    return ListTable(["id", "formula"], rows, atoms=structures)


POLYMORPHS = [
    bulk("ZnS", "zincblende", a=5.41),
    bulk("ZnS", "wurtzite", a=3.82, c=6.26),
    bulk("ZnS", "rocksalt", a=5.0),
    bulk("Cu", "fcc", a=3.61),
    bulk("Cu", "hcp", a=2.553, c=4.169),
    bulk("Fe", "bcc", a=2.87),
]


@pytest.mark.parametrize("method", ["fingerprint", "matcher"])
def test_unique_sees_through_the_description(method: str) -> None:
    structures: list[Atoms | Exception] = [*POLYMORPHS]
    for atoms in POLYMORPHS:
        structures += descriptions(atoms)
    structures += [ValueError("broken"), ValueError("broken")]
    n = len(structures)
    selection = Selection(unique=method)
    assert list(selection.indices(table_of(structures))) == [*range(6), n - 2, n - 1]
    # The first in the current order stays.
    backwards = Selection(unique=method, sort=("-id",)).indices(table_of(structures[:12]))
    assert len(backwards) == 6 and backwards[0] == 9


def test_fingerprint_tells_orderings_apart(crystals: dict[str, Atoms]) -> None:
    """The same lattice with atoms placed otherwise."""
    rocksalt = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    layered = rocksalt.copy()
    z = np.round(layered.get_scaled_positions()[:, 2] * 2).astype(int) % 2
    layered.numbers = np.where(z == 1, 17, 11)
    found = [fingerprint(a) for a in (rocksalt, layered)]
    assert np.abs(found[0] / found[1] - 1).max() > 0.1
    noisy = crystals["SrTiO3"].copy() if "SrTiO3" in crystals else rocksalt.copy()
    clean = fingerprint(noisy)
    noisy.rattle(0.003, seed=1)
    assert np.abs(fingerprint(noisy) / clean - 1).max() < 0.01


def test_unique_reads_only_what_it_needs() -> None:
    asked: list[int] = []

    class Counting(ListTable):
        def structures(self, indices: np.ndarray) -> Any:
            asked.extend(indices.tolist())
            return super().structures(indices)

    structures = [*POLYMORPHS[3:], *POLYMORPHS[3:]] * 400
    rows = [{"formula": a.get_chemical_formula()} for a in structures]
    rows[5]["formula"] = "Xe"  # a formula of its own is never read
    table = Counting(["formula"], rows, atoms=structures)
    assert list(Selection(unique="fingerprint", top=3).indices(table)) == [0, 1, 2]
    assert len(asked) < 40 and 5 not in asked and len(set(asked)) == len(asked)


@given(st.lists(st.integers(0, 6), max_size=40), st.one_of(st.none(), st.integers(1, 12)))
def test_unique_is_brute_force(kinds: list[int], top: int | None) -> None:
    """Whatever the blocks: kind 0 is unreadable, 1 and 2 are polymorphs, others are apart."""
    known = [POLYMORPHS[i] for i in (0, 1, 2, 3, 4, 5)]
    structures = [ValueError("broken") if k == 0 else known[k - 1] for k in kinds]
    rows = [{"formula": "SZn" if k == 0 else known[k - 1].get_chemical_formula()} for k in kinds]
    table = ListTable(["formula"], rows, atoms=structures)
    expected = [i for i, k in enumerate(kinds) if k == 0 or k not in kinds[:i]][:top]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recinet_ase.screening.selection.unique._SMALLEST_BLOCK", 2)
        patch.setattr("recinet_ase.screening.selection.unique._LARGEST_BLOCK", 5)
        found = Selection(unique="fingerprint", top=top).indices(table)
    assert list(found) == expected
