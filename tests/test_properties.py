"""Names, aliases, units."""

from __future__ import annotations

import pytest

from recinet_ase import ReciNetError, UnknownNameError
from recinet_ase.properties import (
    PROPERTIES,
    answer_for,
    answers_for,
    get_property_info,
    parse_properties,
    property_of,
    told_apart,
)


@pytest.mark.parametrize(
    ("alias", "name", "unit"),
    [
        ("eform", "formation_energy", "eV/atom"),
        ("E_form", "formation_energy", "eV/atom"),
        ("gap", "bandgap", "eV"),
        ("band-gap", "bandgap", "eV"),
        ("e_above_hull", "ehull", "eV/atom"),
        ("energy_above_hull", "ehull", "eV/atom"),
        ("hull_distance", "ehull", "eV/atom"),
        ("Kv", "bulk_modulus", "GPa"),
        ("gv", "shear_modulus", "GPa"),
        ("etot", "total_energy", "eV/atom"),
        ("exfoliation", "exfoliation_energy", "meV/atom"),
    ],
)
def test_aliases(alias: str, name: str, unit: str) -> None:
    info = get_property_info(alias)
    assert (info.name, info.unit) == (name, unit)


@pytest.mark.parametrize("name", ["ef", "k_vrh", "g_vrh", "mbj_bandgap", "bandgap_mbj", "mbj"])
def test_names_of_other_quantities_are_no_aliases(name: str) -> None:
    """A Fermi energy, Voigt-Reuss-Hill averages, a gap that a PBE model must not answer for."""
    with pytest.raises(UnknownNameError):
        get_property_info(name)


def test_no_alias_means_two_things() -> None:
    aliases = [a for info in PROPERTIES.values() for a in (info.name, *info.aliases)]
    assert len(aliases) == len(set(aliases))


def test_unknown_names_are_corrected() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'bandgap'") as caught:
        get_property_info("bandgpa")
    assert caught.value.suggestions[0] == "bandgap"


def test_lists() -> None:
    names = [info.name for info in parse_properties(" bandgap, ehull,gap ")]
    assert names == ["bandgap", "ehull"]
    with pytest.raises(UnknownNameError):
        parse_properties(" , ")


def test_a_property_of_one_source() -> None:
    (info,) = parse_properties("kv[mp-bulk]")
    assert info.name == "bulk_modulus[mp-bulk]" and info.label == "bulk modulus (mp-bulk)"
    assert info.unit == "GPa" and property_of(info.name, "GPa") == info
    given = told_apart([("a", ("bandgap", "x")), ("b", ("bandgap",)), ("c", ("y",))])
    assert given == [("bandgap[a]", "x"), ("bandgap[b]",), ("y",)]
    names = [name for own in given for name in own]
    assert answers_for("bandgap", names) == ["bandgap[a]", "bandgap[b]"]
    assert answers_for("bandgap[b]", names) == ["bandgap[b]"]
    assert answer_for("ehull", names) is None
    with pytest.raises(ReciNetError, match=r"say which: bandgap\[a\], bandgap\[b\]"):
        answer_for("bandgap", names)
