"""The registry of properties: names, labels, units, aliases and default models.

Every number that leaves the package is labelled from here, so that a unit is
written down once. A property that is not in the registry can be learnt from one's own
data; it carries the name and unit that it was given (`custom_property`).
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

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
    unit: str = ""
    default_model: str = ""
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


def _registry() -> dict[str, PropertyInfo]:
    """The properties of ``properties.toml``, in its order."""
    table = tomllib.loads((files(__package__) / "properties.toml").read_text(encoding="utf-8"))
    return {
        name: PropertyInfo(name, **{**fields, "aliases": tuple(fields.get("aliases", ()))})
        for name, fields in table.items()
    }


PROPERTIES = _registry()
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


def plain(name: str) -> str:
    """A property's name without the source in brackets that it may have."""
    return name.partition("[")[0]


def told_apart(given: Iterable[tuple[str, Sequence[str]]]) -> list[tuple[str, ...]]:
    """Names of the outputs of several models, with the model's where two give the same.

    ``"bulk_modulus"`` of jarvis-bulk and mp-bulk is ``"bulk_modulus[jarvis-bulk]"`` and
    ``"bulk_modulus[mp-bulk]"``.

    Args:
        given: Each model's name and outputs.
    """
    given = list(given)
    counts = Counter(name for _, names in given for name in names)
    return [tuple(f"{n}[{model}]" if counts[n] > 1 else n for n in own) for model, own in given]


def answers_for(name: str, given: Iterable[str]) -> list[str]:
    """The properties among ``given`` that a name means.

    Itself; or all that have it from one of several sources (``"bulk_modulus[mp-bulk]"``); or the
    first of its variants.
    """
    given = list(given)
    if name in given:
        return [name]
    if sourced := [other for other in given if plain(other) == name]:
        return sourced
    variants = [o for o in given if o in PROPERTIES and PROPERTIES[o].variant_of == name]
    return variants[:1]


def answer_for(name: str, given: Iterable[str]) -> str | None:
    """The only one of `answers_for`, None if there is none.

    Raises:
        ReciNetError: If there are several.
    """
    found = answers_for(name, given)
    if len(found) > 1:
        raise ReciNetError(f"several models give {name}; say which: {', '.join(found)}")
    return found[0] if found else None


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
    if source.endswith("]"):
        return sourced_property(property_of(base, unit), source[:-1])
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
    custom = {_normalised(info.name): info for info in known if info.name not in PROPERTIES}

    def find(name: str) -> PropertyInfo:
        """A property of the registry or one of the custom ones."""
        base, bracket, source = name.partition("[")
        if bracket and source.endswith("]"):
            return sourced_property(find(base), source[:-1].strip())
        if _normalised(name) in custom:
            return custom[_normalised(name)]
        try:
            return get_property_info(name)
        except UnknownNameError:
            if not custom:
                raise
            aliases = {alias: info.name for alias, info in _BY_ALIAS.items()}
            raise UnknownNameError(
                "property", name, [*PROPERTIES, *(i.name for i in custom.values())], aliases
            ) from None

    return list(dict.fromkeys(map(find, names)))
