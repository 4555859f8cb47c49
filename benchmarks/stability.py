"""How well stable crystals are found: `ehull` of every energy model, on held-out crystals.

python benchmarks/stability.py --data-dir DIR [--models jarvis-eform ...] [--limit 500] [--speed]

Validation crystals of the official split, their labels and predictions both measured from the
hull of the training labels alone: with validation labels in it, a known crystal would be its
own reference, which flatters. A crystal is stable at a threshold where its distance is not above
it. ``ehull_label`` (JARVIS 2021's published label) is judged by the same truth.

With ``--speed``: the cost of the `ehull` column beside that of the network, in a screen of
crystals of 10,000 different chemical systems. With ``--pairs``: which lacking binaries matter.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tools"))
from make_references import labelled, records_of

from recinet_ase import Predictor
from recinet_ase.elements import pauling_electronegativities
from recinet_ase.stability import Hull
from recinet_ase.stability.composition import atomic_numbers

THRESHOLDS = (0.0, 0.025, 0.05, 0.1)
MODELS = (
    "jarvis-eform", "jarvis-eform:ensemble", "jarvis-mt", "mp-eform", "jarvis-ehull",
)  # fmt: skip
LABEL = "ehull_label"
_SYSTEMS = 10_000


def scores(truth: np.ndarray, found: np.ndarray, threshold: float) -> tuple[float, float, float]:
    """Precision, recall and F1 of the crystals not above a threshold."""
    stable, called = truth <= threshold, found <= threshold
    hits = float((stable & called).sum())
    precision, recall = hits / max(called.sum(), 1), hits / max(stable.sum(), 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)


def judge(
    model: str, prop: str, hull: Hull, phases: Sequence[Any], structures: Sequence[Any]
) -> str:
    """A row of the table for one model."""
    given = hull if prop == "ehull" else None
    predictor = Predictor(model, device="cpu", properties=(prop,), hull=given, intervals=False)
    found = np.array([r.values.get(prop, np.nan) for r in predictor.predict_many(structures)])
    truth = np.array([p.energy for p in phases]) - hull.energies_of([p.amounts for p in phases])
    known = np.isfinite(found)
    truth, found = truth[known], found[known]
    cells = []
    for threshold in THRESHOLDS:
        precision, recall, f1 = scores(truth, found, threshold)
        cells.append(f"{precision:.3f}, {recall:.3f}, **{f1:.3f}**")
    error = 1000 * np.abs(found - truth).mean()
    return f"| {model} | `{prop}` | {len(truth):,} | {' | '.join(cells)} | {error:.1f} |"


def quality(data: Path, models: Sequence[str], limit: int | None) -> None:
    print("| model | property | crystals | at 0 | at 0.025 | at 0.05 | at 0.1 | MAE (meV/atom) |")
    print("|---|---|---|---|---|---|---|---|")
    for dataset in ("jarvis", "mp"):
        chosen = [name for name in models if name.startswith(dataset)]
        if not chosen:
            continue
        parts = labelled(data, dataset, ("train", "val"))
        hull = Hull(parts["train"], name="training labels")
        # Cells of 2025 are not always those that their labels of 2018 belong to.
        phases = labelled(data, dataset, ("val",), first=True)["val"][:limit]
        records = records_of(data, dataset)
        structures = [records[phase.id] for phase in phases]
        del records
        for name in chosen:
            outputs = Predictor(name, device="cpu").properties
            for prop in ("ehull", LABEL):
                if prop in outputs:
                    print(judge(name, prop, hull, phases, structures), flush=True)


def pairs(data: Path) -> None:
    """How often labels lie below the hull, by the pair of elements that has no binary."""
    parts = labelled(data, "jarvis", ("train", "val"))
    hull = Hull(parts["train"])
    scale, number = pauling_electronegativities(), atomic_numbers()
    truth = np.array([p.energy for p in parts["val"]])
    truth -= hull.energies_of([p.amounts for p in parts["val"]])
    largest = np.array(
        [
            max(
                (
                    abs(scale[number[a]] - scale[number[b]])
                    for a, b in combinations(p.amounts, 2)
                    if frozenset((a, b)) not in hull.pairs
                ),
                default=-1.0,
            )
            for p in parts["val"]
        ]
    )
    edges = (-2.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 9.0)
    for low, high in pairwise(edges):
        inside = (largest >= low) & (largest < high)
        below = 100 * (truth[inside] < -0.05).mean()
        print(
            f"difference {low} to {high}: {inside.sum():,} crystals, {below:.0f} % below the hull"
        )


def speed(data: Path, model: str) -> None:
    """Seconds of the network and of the column, crystals of different systems."""
    systems: dict[frozenset[str], Any] = {}
    for record in records_of(data, "jarvis").values():
        systems.setdefault(frozenset(record["atoms"]["elements"]), record)
    chosen = list(systems.values())
    np.random.default_rng(0).shuffle(chosen)
    chosen = chosen[:_SYSTEMS]
    sizes = Counter(len(set(r["atoms"]["elements"])) for r in chosen)
    print(f"{len(chosen):,} crystals, elements in them: {dict(sorted(sizes.items()))}")
    predictor = Predictor(model, device="cpu", properties=("formation_energy", "ehull"))
    predictor.stability.decomposition = False  # as a screen asks for it
    predictor.predict_many(chosen[:512])
    predictor.stability.hull.forget()
    spent = {"graphs": 0.0, "network": 0.0, "column": 0.0}
    for start in range(0, len(chosen), 512):
        clock = [time.process_time()]
        window = predictor.preparation(chosen[start : start + 512])
        clock.append(time.process_time())
        stability, predictor.stability = predictor.stability, None
        results = predictor.run(window)
        predictor.stability = stability
        clock.append(time.process_time())
        stability(results)
        clock.append(time.process_time())
        for key, seconds in zip(spent, np.diff(clock), strict=True):
            spent[key] += seconds
    micro = {key: 1e6 * seconds / len(chosen) for key, seconds in spent.items()}
    print(
        f"{model}, microseconds of CPU a crystal: graphs {micro['graphs']:.0f}, network "
        f"{micro['network']:.0f}, ehull {micro['column']:.1f} "
        f"({100 * spent['column'] / spent['network']:.1f} % of the network's)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--limit", type=int, help="judge on the first N crystals only")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--pairs", action="store_true")
    arguments = parser.parse_args()
    if arguments.pairs:
        pairs(arguments.data_dir)
    elif arguments.speed:
        speed(arguments.data_dir, arguments.models[0])
    else:
        quality(arguments.data_dir, arguments.models, arguments.limit)


if __name__ == "__main__":
    main()
