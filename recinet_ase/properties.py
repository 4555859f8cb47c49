"""The registry of properties: names, labels, units, aliases and default models.

Every number that leaves the package is labelled from here, so that a unit is
written down once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from recinet_ase.errors import UnknownNameError


@dataclass(frozen=True)
class PropertyInfo:
    """What a property is called, what it means and which model answers it.

    Attributes:
        name: Canonical name, as typed in ``--props`` and ``get_property``.
        label: Plain-language label for reports and axes.
        unit: Unit of every number reported under this name (``""`` if dimensionless).
        default_model: Pretrained model that answers the property unless told otherwise.
        aliases: Other accepted spellings, lower case.
        minimum: Physical lower bound; predictions are clipped to it.
        per_atom: Whether the quantity is normalised per atom.
        variant_of: Property that this is another level of theory of; a model that is named
            explicitly answers for it too.
    """

    name: str
    label: str
    unit: str
    default_model: str
    aliases: tuple[str, ...] = ()
    minimum: float | None = None
    per_atom: bool = False
    variant_of: str | None = None

    @property
    def column(self) -> str:
        """Label with the unit, e.g. ``"band gap (eV)"``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


PROPERTIES: dict[str, PropertyInfo] = {
    info.name: info
    for info in (
        PropertyInfo(
            "formation_energy",
            "formation energy",
            "eV/atom",
            "jarvis-eform",
            ("eform", "e_form", "ef", "formation_energy_per_atom", "formation_energy_peratom"),
            per_atom=True,
        ),
        PropertyInfo(
            "total_energy",
            "total energy",
            "eV/atom",
            "jarvis-etot",
            ("etot", "e_tot", "total_energy_per_atom", "optb88vdw_total_energy"),
            per_atom=True,
        ),
        PropertyInfo(
            "ehull",
            "energy above the convex hull",
            "eV/atom",
            "jarvis-ehull",
            ("e_hull", "e_above_hull", "energy_above_hull", "hull"),
            minimum=0.0,
            per_atom=True,
        ),
        PropertyInfo(
            "bandgap",
            "band gap",
            "eV",
            "jarvis-mbj",
            ("gap", "band_gap", "eg", "bandgap_mbj", "mbj_bandgap", "mbj"),
            minimum=0.0,
        ),
        PropertyInfo(
            "bandgap_opt",
            "band gap (OptB88vdW)",
            "eV",
            "jarvis-opt",
            ("gap_opt", "opt", "optb88vdw_bandgap", "bandgap_optb88vdw"),
            minimum=0.0,
            variant_of="bandgap",
        ),
        PropertyInfo(
            "bulk_modulus",
            "bulk modulus (Voigt)",
            "GPa",
            "jarvis-bulk",
            ("kv", "k_v", "bulk", "k_vrh", "bulk_modulus_kv"),
            minimum=0.0,
        ),
        PropertyInfo(
            "shear_modulus",
            "shear modulus (Voigt)",
            "GPa",
            "jarvis-shear",
            ("gv", "g_v", "shear", "g_vrh", "shear_modulus_gv"),
            minimum=0.0,
        ),
        PropertyInfo(
            "exfoliation_energy",
            "exfoliation energy",
            "meV/atom",
            "jarvis-exfoliation",
            ("exfoliation", "e_exf", "exfoliation_en"),
            minimum=0.0,
            per_atom=True,
        ),
    )
}

_BY_ALIAS = {alias: info for info in PROPERTIES.values() for alias in (info.name, *info.aliases)}


def get_property_info(name: str) -> PropertyInfo:
    """Look up a property by its name or one of its aliases (case and ``-`` ignored).

    Args:
        name: For example ``"bandgap"``, ``"e_above_hull"`` or ``"Kv"``.

    Returns:
        The registry's entry.

    Raises:
        UnknownNameError: If no property has that name; the nearest one is suggested.
    """
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    try:
        return _BY_ALIAS[key]
    except KeyError:
        names = {alias: info.name for alias, info in _BY_ALIAS.items()}
        raise UnknownNameError("property", name, PROPERTIES, names) from None


def answer_for(name: str, given: Iterable[str]) -> str | None:
    """The property among ``given`` that answers for ``name``: itself, or a variant of it."""
    given = list(given)
    if name in given:
        return name
    return next((other for other in given if PROPERTIES[other].variant_of == name), None)


def parse_properties(text: str | Iterable[str]) -> list[PropertyInfo]:
    """Turn ``"bandgap,ehull"`` (or a list of names) into registry entries, without repeats.

    Raises:
        UnknownNameError: For a name that is not in the registry, or none at all.
    """
    names = text.split(",") if isinstance(text, str) else list(text)
    names = [name for name in (part.strip() for part in names) if name]
    if not names:
        raise UnknownNameError("property", "", PROPERTIES)
    return list(dict.fromkeys(get_property_info(name) for name in names))
