"""The references that come with the package, each of one level of theory.

A set ``NAME`` is ``data/NAME.csv.gz`` (formula, formation energy in eV/atom, id: the phases on
the hull of their own chemical system) and ``data/NAME.json`` (level of theory, source, licence,
pairs of elements with a known binary compound). ``tools/make_references.py`` makes them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from recinet_ase.errors import UnknownNameError
from recinet_ase.stability.composition import parse_formula
from recinet_ase.stability.hull import Hull
from recinet_ase.stability.phases import Phase

SHIPPED = {"jarvis": "OptB88vdW", "mp": "PBE"}
"""Level of theory of each set of references."""


def references_for(functional: str) -> str | None:
    """The shipped references of a level of theory, None if there are none."""
    return next((name for name, theory in SHIPPED.items() if theory == functional), None)


@lru_cache(maxsize=2)
def load_references(name: str) -> Hull:
    """The hull of shipped references.

    Raises:
        UnknownNameError: If there are none of that name.
    """
    if name not in SHIPPED:
        raise UnknownNameError("references", name, SHIPPED)
    about = references_card(name)
    packed = (files(__package__) / "data" / f"{name}.csv.gz").read_bytes()
    phases = []
    for row in csv.DictReader(io.StringIO(gzip.decompress(packed).decode())):
        amounts = parse_formula(row["formula"])
        phases.append(Phase(row["formula"], float(row["energy"]), row["id"], amounts))
    pairs = [frozenset(pair.split("-")) for pair in about["pairs"].split()]
    return Hull.of_corners(phases, about["functional"], name, pairs)


def references_card(name: str) -> dict[str, Any]:
    """What shipped references are: level of theory, source, licence, counts."""
    text = (files(__package__) / "data" / f"{name}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def write_references(folder: Path, hull: Hull, about: dict[str, Any]) -> None:
    """Write a hull as a set of references.

    Args:
        folder: Where to.
        hull: The hull, with its name and level of theory.
        about: Source, licence and how it was made.
    """
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(("formula", "energy", "id"))
    writer.writerows((phase.formula, f"{phase.energy:.6g}", phase.id) for phase in hull)
    packed = gzip.compress(rows.getvalue().encode(), compresslevel=9, mtime=0)
    (folder / f"{hull.name}.csv.gz").write_bytes(packed)
    card = {
        "name": hull.name,
        "functional": hull.functional,
        **about,
        "corners": len(hull),
        "pairs": " ".join(sorted("-".join(sorted(pair)) for pair in hull.pairs)),
    }
    text = json.dumps(card, indent=2) + "\n"
    (folder / f"{hull.name}.json").write_text(text, encoding="utf-8")
