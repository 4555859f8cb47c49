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
from importlib.resources import files
from typing import Any

from recinet_ase.errors import UnknownNameError
from recinet_ase.stability.composition import parse_formula
from recinet_ase.stability.phases import Phase

SHIPPED = {"jarvis": "OptB88vdW", "mp": "PBE"}
"""Level of theory of each set of references."""


def references_for(functional: str) -> str | None:
    """The shipped references of a level of theory, None if there are none."""
    return next((name for name, theory in SHIPPED.items() if theory == functional), None)


def shipped_phases(name: str) -> tuple[list[Phase], dict[str, Any]]:
    """The phases of shipped references, each on the hull, and their card.

    Raises:
        UnknownNameError: If there are none of that name.
    """
    if name not in SHIPPED:
        raise UnknownNameError("references", name, SHIPPED)
    packed = (files(__package__) / "data" / f"{name}.csv.gz").read_bytes()
    phases = []
    for row in csv.DictReader(io.StringIO(gzip.decompress(packed).decode())):
        amounts = parse_formula(row["formula"])
        phases.append(Phase(row["formula"], float(row["energy"]), row["id"], amounts))
    return phases, references_card(name)


def references_card(name: str) -> dict[str, Any]:
    """What shipped references are: level of theory, source, licence, counts."""
    text = (files(__package__) / "data" / f"{name}.json").read_text(encoding="utf-8")
    card: dict[str, Any] = json.loads(text)
    return card
