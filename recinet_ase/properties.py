"""The registry of properties: names, labels, units, aliases and default models.

Every number that leaves the package is labelled from here, so that a unit is
written down once. A property that is not in the registry can be learnt from one's own
data; it carries the name and unit that it was given (`custom_property`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from recinet_ase.errors import ReciNetError, UnknownNameError


@dataclass(frozen=True)
class PropertyInfo:
    """What a property is called, what it means and which model answers it.

    Attributes:
        name: Canonical name, as typed in ``--props`` and ``get_property``.
        label: Plain-language label for reports and axes.
        unit: Unit of every number reported under this name (``""`` if dimensionless).
        default_model: Pretrained model that answers the property unless told otherwise, ``""``
            if there is none.
        aliases: Other accepted spellings, lower case.
        minimum, maximum: Physical bounds; predictions are clipped to them.
        per_atom: Whether the quantity is normalised per atom.
        derived_from: Property that it is computed from where a model does not give it itself.
        variant_of: Property that this is another level of theory of; a model that is named
            explicitly answers for it too.
        symbol: Usual symbol.
        description: What exactly the number is, where the label does not say it.
        logarithmic: Whether benchmarks score the decimal logarithm; errors are then given for
            both.
    """

    name: str
    label: str
    unit: str
    default_model: str
    aliases: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    per_atom: bool = False
    derived_from: str | None = None
    variant_of: str | None = None
    symbol: str = ""
    description: str = ""
    logarithmic: bool = False

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
            ("eform", "e_form", "formation_energy_per_atom", "formation_energy_peratom"),
            per_atom=True,
        ),
        PropertyInfo(
            "total_energy",
            "total energy",
            "eV/atom",
            "jarvis-etot",
            ("etot", "e_tot", "total_energy_per_atom", "energy_per_atom", "optb88vdw_total_energy"),
            per_atom=True,
        ),
        PropertyInfo(
            "ehull",
            "distance to the convex hull",
            "eV/atom",
            "jarvis-eform",
            ("e_hull", "e_above_hull", "energy_above_hull", "hull_distance", "hull"),
            per_atom=True,
            derived_from="formation_energy",
            symbol="ΔE",
            description=(
                "of the predicted formation energy, to the hull of known phases of the same "
                "level of theory; negative where a crystal lies below it"
            ),
        ),
        PropertyInfo(
            "ehull_label",
            "JARVIS-DFT 2021 'ehull' label, no hull distance",
            "eV/atom",
            "jarvis-ehull",
            ("jarvis_ehull",),
            minimum=0.0,
            per_atom=True,
            description="for the benchmark, a faulty label (see docs, limits); stability is ehull",
        ),
        PropertyInfo(
            "bandgap",
            "band gap",
            "eV",
            "jarvis-mbj",
            ("gap", "band_gap", "eg"),
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
        # No lower bound: JARVIS gives negative moduli to crystals that are elastically unstable
        # (6 % of the shear moduli), and a model that hides them says less than the data.
        PropertyInfo(
            "bulk_modulus",
            "bulk modulus",
            "GPa",
            "jarvis-bulk",
            ("kv", "k_v", "bulk", "bulk_modulus_kv"),
            logarithmic=True,
        ),
        PropertyInfo(
            "shear_modulus",
            "shear modulus",
            "GPa",
            "jarvis-shear",
            ("gv", "g_v", "shear", "shear_modulus_gv"),
            logarithmic=True,
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
        PropertyInfo(
            "phonon_peak",
            "last peak of the phonon density of states",
            "1/cm",
            "",
            ("last_phdos_peak", "phdos_peak", "ph_dos_peak"),
            minimum=0.0,
        ),
        # MatBench scores the logarithm, and the mean absolute error of a logarithm is not that
        # of the modulus: properties of their own, with Voigt-Reuss-Hill averages.
        PropertyInfo(
            "log_bulk_modulus",
            "logarithm of the bulk modulus (Voigt-Reuss-Hill)",
            "log10(GPa)",
            "",
            ("log_kvrh", "log10_k_vrh", "log_k_vrh", "log10(k_vrh)"),
        ),
        PropertyInfo(
            "log_shear_modulus",
            "logarithm of the shear modulus (Voigt-Reuss-Hill)",
            "log10(GPa)",
            "",
            ("log_gvrh", "log10_g_vrh", "log_g_vrh", "log10(g_vrh)"),
        ),
        PropertyInfo(
            "refractive_index",
            "refractive index",
            "",
            "",
            ("refraction", "index_of_refraction"),
            minimum=1.0,
        ),
        PropertyInfo(
            "perovskite_energy",
            "formation energy of the five-atom perovskite cell",
            "eV/cell",
            "",
            ("perovskite_formation_energy",),
        ),
        # What JARVIS computes besides.
        PropertyInfo(
            "dielectric",
            "electronic dielectric constant",
            "",
            "jarvis-functional",
            ("epsilon", "eps", "mepsx", "dielectric_constant", "dielectric_mbj"),
            minimum=1.0,
            symbol="ε∞",
            description=(
                "mean of the diagonal of the static electronic dielectric tensor, from "
                "interband transitions alone (metals have none of their Drude part)"
            ),
        ),
        PropertyInfo(
            "dielectric_opt",
            "electronic dielectric constant (OptB88vdW)",
            "",
            "jarvis-functional",
            ("epsx", "epsilon_opt", "eps_opt"),
            minimum=1.0,
            variant_of="dielectric",
            symbol="ε∞",
            description="as dielectric, from OptB88vdW bands, whose gaps are too small",
        ),
        PropertyInfo(
            "dielectric_total",
            "largest static dielectric constant, ions included",
            "",
            "jarvis-functional",
            ("dfpt_piezo_max_dielectric", "static_dielectric", "eps0"),
            minimum=1.0,
            symbol="ε0",
            description="largest element of the static dielectric tensor (DFPT)",
        ),
        PropertyInfo(
            "piezoelectric_strain",
            "largest piezoelectric strain coefficient",
            "pC/N",
            "jarvis-functional",
            ("dfpt_piezo_max_dij", "piezo_dij", "dij"),
            minimum=0.0,
            symbol="d",
            description="largest absolute element of the piezoelectric strain tensor (DFPT)",
        ),
        PropertyInfo(
            "slme",
            "spectroscopic limited maximum efficiency",
            "%",
            "jarvis-functional",
            ("solar_efficiency", "sq_slme"),
            minimum=0.0,
            maximum=33.7,  # Shockley and Queisser's limit, as JARVIS defines it
            symbol="SLME",
            description="of a thin-film solar cell, from the absorption spectrum",
        ),
        PropertyInfo(
            "spillage",
            "spin-orbit spillage",
            "",
            "jarvis-functional",
            ("spin_orbit_spillage", "soc_spillage"),
            minimum=0.0,
            symbol="η",
            description="largest over k points; above about 0.5 a hint at band inversion",
        ),
        PropertyInfo(
            "magnetic_moment",
            "magnetic moment",
            "muB/atom",
            "jarvis-functional",
            ("magnetisation", "magnetization", "magmom_oszicar"),
            minimum=0.0,
            per_atom=True,
            symbol="μ",
            description="total moment of the cell, of a ferromagnetic start, per atom",
        ),
        PropertyInfo(
            "seebeck_n",
            "Seebeck coefficient (n-type)",
            "uV/K",
            "jarvis-functional",
            ("seebeck", "n_seebeck"),
            symbol="S",
            description="mean of the diagonal, BoltzTraP at 600 K and 1e20 electrons/cm^3",
        ),
        PropertyInfo(
            "power_factor_n",
            "thermoelectric power factor (n-type)",
            "uW/(m K^2)",
            "jarvis-functional",
            ("power_factor", "powerfactor", "n_powerfact"),
            minimum=0.0,
            symbol="PF",
            description=(
                "mean of the diagonal, BoltzTraP at 600 K and 1e20 electrons/cm^3, relaxation "
                "time 1e-14 s"
            ),
        ),
        PropertyInfo(
            "electron_mass",
            "effective mass of electrons",
            "m_e",
            "jarvis-functional",
            ("avg_elec_mass", "electron_effective_mass"),
            minimum=0.0,
            symbol="m*e",
            description="mean of the diagonal of the tensor (BoltzTraP); not defined for metals",
        ),
        PropertyInfo(
            "hole_mass",
            "effective mass of holes",
            "m_e",
            "jarvis-functional",
            ("avg_hole_mass", "hole_effective_mass"),
            minimum=0.0,
            symbol="m*h",
            description="mean of the diagonal of the tensor (BoltzTraP); not defined for metals",
        ),
        PropertyInfo(
            "heat_capacity",
            "heat capacity per mole of atoms",
            "J/(mol K)",
            "jarvis-functional",
            ("ph_heat_capacity", "cv"),
            minimum=0.0,
            maximum=24.943,  # 3 R
            per_atom=True,
            symbol="C_V",
            description="of the phonons at room temperature; at most 3 R = 24.94 J/(mol K)",
        ),
        PropertyInfo(
            "electric_field_gradient",
            "largest electric field gradient",
            "1e21 V/m^2",
            "jarvis-functional",
            ("max_efg", "efg"),
            minimum=0.0,
            symbol="V_zz",
            description="largest over the atoms of the cell",
        ),
    )
}

_BY_ALIAS = {alias: info for info in PROPERTIES.values() for alias in (info.name, *info.aliases)}


def _normalised(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def get_property_info(name: str) -> PropertyInfo:
    """Look up a property by its name or one of its aliases (case and ``-`` ignored).

    Args:
        name: For example ``"bandgap"``, ``"e_above_hull"`` or ``"Kv"``.

    Returns:
        The registry's entry.

    Raises:
        UnknownNameError: If no property has that name; the nearest one is suggested.
    """
    try:
        return _BY_ALIAS[_normalised(name)]
    except KeyError:
        names = {alias: info.name for alias, info in _BY_ALIAS.items()}
        raise UnknownNameError("property", name, PROPERTIES, names) from None


def answer_for(name: str, given: Iterable[str]) -> str | None:
    """The property among ``given`` that answers for ``name``: itself, or a variant of it."""
    given = list(given)
    if name in given:
        return name
    return next(
        (o for o in given if o in PROPERTIES and PROPERTIES[o].variant_of == name),
        None,
    )


def source_of(name: str, given: Iterable[str]) -> str | None:
    """The output that a property comes from: itself, or what it is derived from."""
    given = list(given)
    if name in given:
        return name
    derived = PROPERTIES[name].derived_from if name in PROPERTIES else None
    return derived if derived in given else None


_CUSTOM_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = frozenset(
    # Columns of a result table, and names that mean something else to an ASE calculator.
    "id formula natoms error energy free_energy energies forces stress stresses dipole charges "
    "magmom magmoms dielectric_tensor born_effective_charges polarization".split()
)


def custom_property(name: str, unit: str) -> PropertyInfo:
    """A property that is not in the registry.

    Args:
        name: Lower-case letters, digits and ``_``, e.g. ``"melting_temperature"``.
        unit: Unit of its numbers, ``""`` (or ``"1"``) if it has none.

    Raises:
        ReciNetError: If the name belongs to the registry or to ASE, or is no plain word.
    """
    if _normalised(name) in _BY_ALIAS:
        info = _BY_ALIAS[_normalised(name)]
        raise ReciNetError(
            f"{name!r} is the package's own {info.name} in {info.unit or '1'}; call another "
            "quantity by another name"
        )
    if not _CUSTOM_NAME.fullmatch(name) or name in _RESERVED:
        raise ReciNetError(
            f"{name!r} cannot name a property: use lower-case letters, digits and '_', and none "
            f"of {', '.join(sorted(_RESERVED))}"
        )
    unit = "" if unit.strip() == "1" else unit.strip()
    return PropertyInfo(name, name.replace("_", " "), unit, "", per_atom=unit.endswith("/atom"))


def sourced_property(info: PropertyInfo, source: str) -> PropertyInfo:
    """A property as one source gives it, where a model learns it from several.

    It is named like ``"formation_energy[mp]"``, and no default model answers it.
    """
    name, label = f"{info.name}[{source}]", f"{info.label} ({source})"
    return replace(info, name=name, label=label, default_model="", aliases=(), variant_of=None)


def property_of(name: str, unit: str) -> PropertyInfo:
    """The registry's entry of that exact name (or of one source), else a custom property."""
    base, _, source = name.partition("[")
    if source.endswith("]") and base in PROPERTIES:
        return sourced_property(PROPERTIES[base], source[:-1])
    return PROPERTIES[name] if name in PROPERTIES else custom_property(name, unit)


def parse_properties(
    text: str | Iterable[str], known: Iterable[PropertyInfo] = ()
) -> list[PropertyInfo]:
    """Turn ``"bandgap,ehull"`` (or a list of names) into registry entries, without repeats.

    Args:
        text: Names or aliases.
        known: Custom properties that are accepted too (those of the models given).

    Raises:
        UnknownNameError: For a name that is not known, or none at all.
    """
    names = text.split(",") if isinstance(text, str) else list(text)
    names = [name for name in (part.strip() for part in names) if name]
    if not names:
        raise UnknownNameError("property", "", PROPERTIES)
    custom = {info.name: info for info in known if info.name not in PROPERTIES}

    def find(name: str) -> PropertyInfo:
        """A property of the registry or one of the custom ones."""
        try:
            return get_property_info(name)
        except UnknownNameError:
            if _normalised(name) in custom:
                return custom[_normalised(name)]
            if not custom:
                raise
            aliases = {alias: info.name for alias, info in _BY_ALIAS.items()}
            raise UnknownNameError("property", name, [*PROPERTIES, *custom], aliases) from None

    return list(dict.fromkeys(map(find, names)))
