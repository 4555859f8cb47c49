"""One's own data: which key is the label, of what property, in which unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from recinet_ase.data.labels import as_number, conversion
from recinet_ase.data.table import TableDataset
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.io.rows import ENERGY_KEY, Row, read_rows
from recinet_ase.properties import PropertyInfo, custom_property, get_property_info

# Names that say "the label" of no property in particular: what `folder_rows` calls the second
# column of an id_prop.csv without a header, and what people write.
NEUTRAL_KEYS = frozenset("label labels prop property target targets value values y".split())


def open_own(
    path: Path,
    target: str | None = None,
    prop: str | None = None,
    unit: str | None = None,
    taken: Collection[str] = (),
) -> TableDataset:
    """A file or folder of one's own as a dataset.

    Args:
        path: See `recinet_ase.io.rows.read_rows`.
        target: Key of the labels. If None: the key that is called like the property, else the
            only key with numbers if its name is one of a property or neutral (`NEUTRAL_KEYS`).
        prop: Property; the target's own name if that is one.
        unit: Unit of the labels, else the property's.
        taken: Names of published data, which this dataset must not go by.

    Raises:
        ReciNetError: If the data cannot be read, or target, property and unit do not fit.
    """
    rows, sources = read_rows(path)
    key = choose_target(rows, path, target, prop)
    if unit is None and key == ENERGY_KEY:
        unit = "eV/atom"
    info, factor = _quantity(key, prop, unit)
    name = path.resolve().name
    if name in taken:
        name = f"./{name}"  # a run must not be taken for one on published data
    dataset = TableDataset(name, rows, sources, key, info, factor)
    given = unit if unit is not None else info.unit
    converted = f", converted to {info.unit}" if factor != 1.0 else ""
    dataset.labels_note = (
        f"{name}: labels are {key!r}, taken as {info.name} in {given or '1'}{converted}"
    )
    return dataset


def choose_target(rows: Sequence[Row], path: Path, target: str | None, prop: str | None) -> str:
    """The key of the labels.

    Raises:
        ReciNetError: If the named one does not exist, or none or several could be meant.
    """
    counts = Counter(key for row in rows for key in row.values)
    numbers = numeric_keys(rows)
    listing = f"keys with numbers: {', '.join(numbers) or 'none'}"
    if target is not None:
        if target in counts:
            return target
        hint = ""
        if target == "energy" and ENERGY_KEY in counts:
            hint = f" (ASE's energy is that of the cell; {ENERGY_KEY!r} is the same per atom)"
        raise ReciNetError(f"{path} has no key {target!r}{hint}; {listing}")
    alike = [key for key in numbers if prop is not None and _same_property(key, prop)]
    if len(alike) == 1:
        return alike[0]
    if len(numbers) == 1 and not alike:
        (key,) = numbers
        if key.strip().lower() in NEUTRAL_KEYS or (prop is None and _registered(key) is not None):
            return key
        wanted = "the name of a property" if prop is None else repr(prop)
        raise ReciNetError(
            f"the only numbers in {path} are called {key!r}, which is not {wanted}; say "
            f"--target {key!r} if they are meant"
        )
    raise ReciNetError(f"say which key of {path} holds the labels (--target KEY); {listing}")


def numeric_keys(rows: Sequence[Row]) -> list[str]:
    """Keys most of whose values are numbers, in order of appearance."""
    good: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for row in rows:
        for key, value in row.values.items():
            number = as_number(value)
            if not isinstance(number, str):
                good[key] += 1
            elif number != "has no label":
                bad[key] += 1
    return [key for key in good if good[key] > bad[key]]


def _registered(name: str) -> str | None:
    try:
        return get_property_info(name).name
    except UnknownNameError:
        return None


def _same_property(key: str, prop: str) -> bool:
    if key == prop:
        return True
    registered = _registered(key)
    return registered is not None and registered == _registered(prop)


def _quantity(key: str, prop: str | None, unit: str | None) -> tuple[PropertyInfo, float]:
    """The property, and the factor from the labels' unit to the property's."""
    name = prop if prop is not None else key
    registered = _registered(name)
    if registered is not None:
        info = get_property_info(registered)
        return info, 1.0 if unit is None else conversion(unit, info.unit)
    if unit is not None:
        return custom_property(name, unit), 1.0
    if prop is None:
        raise ReciNetError(
            f"say what property the labels {key!r} are of (--props NAME), and their unit if the "
            "property is one of your own (--unit UNIT)"
        )
    try:
        get_property_info(name)
    except UnknownNameError as error:
        raise ReciNetError(
            f"{error}; a property of your own needs its unit (--unit UNIT)"
        ) from None
    raise AssertionError("unreachable")
