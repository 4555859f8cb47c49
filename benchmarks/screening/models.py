"""What each shipped model takes for a crystal of its training data's kind.

    OMP_NUM_THREADS=1 python benchmarks/screening/models.py --data-dir DIR -o speed.csv

One thread, from JARVIS records to values with intervals, as `recinet_ase.predict` gives them:
reading, graphs and network. ``x fastest`` is the cost beside the cheapest model in the same run.
The file is where `tools/model_table.py` finds the column.
"""

from __future__ import annotations

import argparse
import csv
import time
from itertools import islice
from pathlib import Path

import torch

from recinet_ase.data.published import JARVIS
from recinet_ase.inference.predictor import Predictor
from recinet_ase.pretrained import available_ensembles, available_models

COLUMN = "crystals_per_second"


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir")
    parser.add_argument("--crystals", type=int, default=1000)
    parser.add_argument(
        "--models", nargs="*", default=[*available_models(), *available_ensembles()]
    )
    parser.add_argument("-o", "--output", type=Path, help="csv: model, crystals a second")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records = JARVIS.records(arguments.data_dir).values()
    step = max(1, len(records) // arguments.crystals)  # over the whole of the file
    structures = [r["atoms"] for r in islice(records, 0, None, step)]
    seconds = {}
    for name in arguments.models:
        predictor = Predictor(name, device="cpu")
        list(predictor.predict_iter(structures[:100]))
        start = time.perf_counter()
        failed = sum(1 for result in predictor.predict_iter(structures) if result.error)
        seconds[name] = (time.perf_counter() - start) / len(structures)
        parameters = sum(p.numel() for m in predictor.models for p in m.parameters())
        print(
            f"{name}: {1 / seconds[name]:.0f} crystals/s, {1e3 * seconds[name]:.2f} ms each, "
            f"{seconds[name] / min(seconds.values()):.2f} x fastest so far, {parameters:,} "
            f"parameters, {failed} refused",
            flush=True,
        )
    if arguments.output is not None:
        write(arguments.output, {name: f"{1 / value:.0f}" for name, value in seconds.items()})


def write(path: Path, measured: dict[str, str]) -> None:
    """Put the figures into the file, beside those of models that were not measured now."""
    if path.exists():
        with path.open(newline="", encoding="utf-8") as handle:
            measured = {row["model"]: row[COLUMN] for row in csv.DictReader(handle)} | measured
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerows([("model", COLUMN), *sorted(measured.items())])


if __name__ == "__main__":
    main()
