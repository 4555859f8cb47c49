"""Ensembles on disk: several model folders that answer together, without loading weights.

``NAME:ensemble`` is the model ``NAME`` and the further members in its folder's ``ensemble/``::

    jarvis-eform/                config.json, model.safetensors ... (a member, and the plain model)
        ensemble/                ensemble.json, calibration.json, calibration.safetensors, README.md
            member-2/            config.json, model.safetensors
            member-3/            ...

A folder that holds ``member-1``, ``member-2``... and no model of its own is an ensemble as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from recinet_ase.errors import ReciNetError

SUFFIX = ":ensemble"
"""What follows a model's name to mean its ensemble."""

FOLDER = "ensemble"
RECORD = "ensemble.json"
"""Figures of the ensemble, and the sha256 of the members' weights that they belong to."""

RECORD_VERSION = 1

_FIGURES = ("validation_mae", "validation_mad", "validation", "n_val")
_ALIKE = {
    "properties": "properties",
    "units": "units",
    "functional": "levels of theory",
    "graph": "neighbour rules",
}


def member_folders(folder: Path) -> list[Path]:
    """The folders ``member-*`` in a folder that hold a model, in order."""
    folders = [path.parent for path in folder.glob("member-*/config.json")]
    return sorted(folders, key=lambda path: (len(path.name), path.name))


def merged_card(
    name: str, folder: Path, members: Sequence[Path], cards: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """The configuration of an ensemble: what its members have in common.

    Args:
        name: Name of the ensemble.
        folder: Where its figures are kept.
        members: Folders of its members.
        cards: Their configurations.

    Returns:
        The first member's configuration, with the elements that all of them know, the properties
        whose held-out crystals none of them saw (``clean_for``), and the provenance of
        the others (``training["members"]``).

    Raises:
        ReciNetError: If members differ in what they predict or in their graphs, or the record
            belongs to others.
    """
    first = cards[0]
    for path, card in zip(members[1:], cards[1:], strict=True):
        for key, words in _ALIKE.items():
            if card.get(key) != first.get(key):
                raise ReciNetError(
                    f"the members of {name} have different {words}: {path} has {card.get(key)}, "
                    f"{members[0]} has {first.get(key)}"
                )
    trainings = [dict(card.get("training", {})) for card in cards]
    training = {key: value for key, value in trainings[0].items() if key not in _FIGURES}
    clean = set.intersection(*(set(t.get("clean_for", ())) for t in trainings))
    counts = [t.get("rare_elements", {}) for t in trainings]
    rare = {e: min(c[e] for c in counts if e in c) for e in sorted({*chain(*counts)})}
    training |= {
        "clean_for": sorted(clean),
        "rare_elements": rare,
        "parameters": sum(int(t.get("parameters", 0)) for t in trainings),
        "members": [
            {**t, "name": card["name"], "network": card["network"]}
            for card, t in zip(cards[1:], trainings[1:], strict=True)
        ],
    }
    training |= _recorded(name, folder, cards)
    elements = set.intersection(*(set(card["elements"]) for card in cards))
    return {**first, "name": name, "elements": sorted(elements), "training": training}


def write_record(folder: Path, cards: Sequence[Mapping[str, Any]], figures: dict[str, Any]) -> None:
    """Keep what was measured of an ensemble.

    Args:
        folder: The ensemble's folder.
        cards: The members' configurations, in order.
        figures: What is measured, under the names that a model's ``training`` has for it.
    """
    document = {
        "format_version": RECORD_VERSION,
        "members": [card["sha256"] for card in cards],
        "training": figures,
    }
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    (folder / RECORD).write_text(text, encoding="utf-8")


def _recorded(name: str, folder: Path, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of an ensemble, ``{}`` where none were measured."""
    path = folder / RECORD
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        known, figures, version = record["members"], record["training"], record["format_version"]
        if version > RECORD_VERSION:
            raise ReciNetError(
                f"{path} has format version {version}; this recinet-ase reads up to "
                f"{RECORD_VERSION}. Upgrade recinet-ase"
            )
        if known != [card["sha256"] for card in cards]:
            raise ReciNetError(
                f"{path} states figures of other members than {name} has now; measure again "
                "(tools/release_model.py), or delete it"
            )
        return dict(figures)
    except ReciNetError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ReciNetError(f"{path} is no record of an ensemble ({error!r})") from None
