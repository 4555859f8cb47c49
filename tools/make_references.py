"""Make the references of `recinet_ase.stability` from published labels.

python tools/make_references.py --data-dir DIR

JARVIS: formation energies (OptB88vdW) of the official training and validation crystals. Materials
Project: those of the MEGNet 2018.6.1 set (PBE, with its corrections) at hand, training and
validation, with the labels of `megnet-cells-2025` (the same set, where only the cells are
later). Kept are the phases on the hull of their own chemical system; no other can ever be a
part of a lowest mixture. Withheld test labels are not used.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from recinet_ase.data.splits import read_json_zip
from recinet_ase.stability.hull import Hull
from recinet_ase.stability.phases import Phase
from recinet_ase.stability.references import SHIPPED

_TARGET = Path(__file__).parents[1] / "recinet_ase" / "stability" / "data"

_FILES = {
    "jarvis": [("jdft_3d-8-18-2021", "dft_3d_formation_energy_peratom")],
    "mp": [("megnet", "megnet_e_form"), ("megnet-cells-2025", "megnet_e_form-cells-2025")],
}
_ABOUT: dict[str, dict[str, Any]] = {
    "jarvis": {
        "source": "JARVIS-DFT 3D, 2021 release (jdft_3d-8-18-2021; Choudhary et al., npj Comput. "
        "Mater. 6, 173, 2020): formation_energy_peratom of the JARVIS-Leaderboard's training and "
        "validation crystals",
        "licence": "NIST, public domain",
    },
    "mp": {
        "source": "Materials Project, MEGNet 2018.6.1 set (Chen et al., Chem. Mater. 31, 3564, "
        "2019; Jain et al., APL Mater. 1, 011002, 2013): e_form of the JARVIS-Leaderboard's "
        "training and validation crystals, three quarters of the set",
        "licence": "CC-BY 4.0",
    },
}


def records_of(data: Path, name: str) -> dict[str, Any]:
    """Records of a dataset by id, with their cells under ``atoms``."""
    key = "jid" if name == "jarvis" else "id"
    found: dict[str, Any] = {}
    for archive, _ in _FILES[name]:
        records: Any = read_json_zip(data / name / f"{archive}.json.zip")
        found |= {record[key]: record for record in records}
    return found


def labelled(
    data: Path, name: str, parts: tuple[str, ...], first: bool = False
) -> dict[str, list[Phase]]:
    """Phases of a dataset by part of the official split (``train``, ``val``).

    Args:
        data: Data root.
        name: ``jarvis`` or ``mp``.
        parts: Which parts.
        first: Of the first of the dataset's files alone.
    """
    found: dict[str, list[Phase]] = {part: [] for part in parts}
    records = records_of(data, name)
    for _, task in _FILES[name][: 1 if first else None]:
        split: Any = read_json_zip(data / name / "splits" / f"{task}.json.zip")
        for part in parts:
            for identity, energy in split[part].items():
                if identity in records:
                    counts = Counter(records[identity]["atoms"]["elements"])
                    found[part].append(Phase.of(counts, energy, identity))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    data = parser.parse_args().data_dir
    _TARGET.mkdir(exist_ok=True)
    for name, functional in SHIPPED.items():
        parts = labelled(data, name, ("train", "val"))
        phases = [phase for part in parts.values() for phase in part]
        hull = Hull(phases, functional, name)
        counts = {part: len(found) for part, found in parts.items()}
        write_references(_TARGET, hull, {**_ABOUT[name], "labels": counts})
        size = (_TARGET / f"{name}.csv.gz").stat().st_size
        print(f"{name}: {len(phases)} labels, {len(hull)} on the hull, {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
