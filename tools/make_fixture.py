"""Write tests/fixtures/: 200 validation crystals of each shipped model, and its errors there.

    python tools/make_fixture.py --data-dir DIR    # crystals, labels and errors
    python tools/make_fixture.py --record [NAME]   # errors only (after replacing a model)

Of each property's official validation set the 200 crystals are taken whose ids have the
smallest sha256: a random sample for every property that shares as many crystals as it can
with the others. A set of fewer crystals is taken whole.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from recinet_ase import Predictor
from recinet_ase.errors import StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import neighbours_of
from recinet_ase.models.ensemble import AnyModel
from recinet_ase.pretrained import available_ensembles, available_models, load_model
from recinet_ase.uncertainty.heldout import crystals_of

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures"
CRYSTALS = FOLDER / "validation.json.gz"
RECORDED = FOLDER / "recorded_errors.json"
SIZE = 200
DECIMALS = 5
RESAMPLES = 2000


def uncalibrated(name: str) -> AnyModel:
    """A shipped model, whatever state its calibration is in."""
    return load_model(name, calibrated=False)


def rounded(structure: Any) -> dict[str, Any]:
    """A structure in JARVIS's schema with 5 decimals."""
    crystal = to_crystal(structure)
    neighbours_of(crystal)
    atoms = crystal.to_ase()
    return {
        "lattice_mat": np.round(crystal.lattice, DECIMALS).tolist(),
        "coords": np.round(crystal.frac_coords, DECIMALS).tolist(),
        "elements": atoms.get_chemical_symbols(),
    }


def write_crystals(data_dir: str | None) -> None:
    structures: dict[str, Any] = {}
    labels: dict[str, dict[str, float]] = {}
    for name in available_models():
        config = uncalibrated(name).config
        crystals = crystals_of(name, config, 0, data_dir)
        dataset = crystals.dataset
        for prop, known in crystals.labels.items():
            chosen = labels.setdefault(f"{dataset}/{prop}", {})
            for key in sorted(known, key=lambda i: hashlib.sha256(i.encode()).digest()):
                if len(chosen) == SIZE:
                    break
                if key not in crystals.validation:
                    continue
                try:
                    structure = rounded(crystals.validation[key])
                except StructureError:
                    continue
                structures[f"{dataset}/{key}"] = structure
                chosen[key] = round(known[key], 7)
    document = json.dumps({"structures": structures, "labels": labels}, separators=(",", ":"))
    # No time stamp: the same crystals give the same file.
    CRYSTALS.write_bytes(gzip.compress(document.encode(), 9, mtime=0))
    atoms = sum(len(s["elements"]) for s in structures.values())
    print(f"{len(structures)} crystals, {atoms} atoms, {CRYSTALS.stat().st_size} bytes: {CRYSTALS}")


def absolute_errors(name: str, fixture: dict[str, Any]) -> dict[str, np.ndarray]:
    """Absolute errors of a shipped model on its crystals of the fixture, by property."""
    model = uncalibrated(name)
    wanted = list(model.config.properties)  # and nothing that follows from them
    predictor = Predictor(model, device="cpu", properties=wanted)
    dataset = model.config.training["dataset"]
    found = {}
    for prop in wanted:
        labels = fixture["labels"][f"{dataset}/{prop}"]
        structures = [fixture["structures"][f"{dataset}/{key}"] for key in labels]
        pairs = zip(predictor.predict_many(structures), labels.values(), strict=True)
        found[prop] = np.array([abs(r.values[prop] - y) for r, y in pairs if not r.error])
    return found


def record(names: list[str]) -> None:
    """Write shipped models' errors on the fixture, with their bootstrap intervals.

    Args:
        names: Models whose errors are measured again; all of them if empty.
    """
    fixture = json.loads(gzip.decompress(CRYSTALS.read_bytes()))
    shipped = [*available_models(), *available_ensembles()]
    recorded: dict[str, Any] = json.loads(RECORDED.read_text()) if names else {}
    for name in names or shipped:
        recorded[name] = {}
        for prop, errors in absolute_errors(name, fixture).items():
            rng = np.random.default_rng(0)
            means = rng.choice(errors, (RESAMPLES, len(errors))).mean(axis=1)
            low, high = np.quantile(means, [0.005, 0.995])
            recorded[name][prop] = {
                "crystals": len(errors),
                "mae": round(float(errors.mean()), 6),
                "bootstrap_99": [round(float(low), 6), round(float(high), 6)],
            }
        print(name, recorded[name])
    RECORDED.write_text(json.dumps(recorded, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", nargs="*", metavar="NAME", help="refresh the errors only")
    parser.add_argument("--data-dir")
    arguments = parser.parse_args()
    if arguments.record is None:
        write_crystals(arguments.data_dir)
    record(arguments.record or [])


if __name__ == "__main__":
    main()
