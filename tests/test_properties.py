"""Names, aliases, units."""

from __future__ import annotations

import pytest

from recinet_ase import UnknownNameError
from recinet_ase.properties import PROPERTIES, get_property_info, parse_properties


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
