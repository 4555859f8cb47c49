"""Energies of CHGNet 0.3.0 for the crystals of datasets, to start a training from.

    python tools/teacher_labels.py jarvis mp mp-unlabelled -o FOLDER --data-dir DIR

writes ``FOLDER/NAME.csv`` with columns ``id,total_energy`` (eV/atom) for each dataset, in a random
order, so that an unfinished file is a sample; the same command goes on where it was stopped.
Crystals that CHGNet does not take are in ``NAME.refused.csv`` with the reason. To learn them:
``recinet-train --dataset jarvis+mp+mp-unlabelled --labels "total_energy[chgnet]=FOLDER"``.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from recinet_ase.data.catalogue import open_dataset
from recinet_ase.errors import ReciNetError, reason_of
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import Crystal

CHUNK = 512
BATCH = 64
COLUMNS = ("id", "total_energy")


def labelled(path: Path) -> set[str]:
    """Ids in a file that may end in the middle of a line, which is cut off."""
    if not path.exists():
        return set()
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    return {line.split(",")[0] for line in whole.decode().splitlines()[1:]}


def append(path: Path, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Write rows, and the header first in a new file."""
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        if new:
            writer.writerow(columns)
        writer.writerows(rows)


def crystals_of(name: str, data_dir: str | None, most_atoms: int) -> dict[str, Crystal]:
    """Crystals of a dataset that a network of this package can learn."""
    found = {}
    for key, structure in open_dataset(name, data_dir).structures():
        try:
            crystal = to_crystal(structure)
        except (ReciNetError, TypeError):
            continue
        if len(crystal) <= most_atoms:
            found[key] = crystal
    return found


def predicted(teacher: Any, crystals: list[Crystal]) -> list[float | Exception]:
    """Energy of each crystal in eV/atom, or why there is none."""
    from pymatgen.core import Structure

    taken, results = [], dict[int, float | Exception]()
    for i, c in enumerate(crystals):
        try:
            structure = Structure(c.lattice, c.numbers.tolist(), c.frac_coords)
            taken.append((i, structure, teacher.graph_converter(structure)))
        except Exception as error:  # an isolated atom, an element it does not know
            results[i] = error
    for start in range(0, len(taken), BATCH):
        some = taken[start : start + BATCH]
        outcome = teacher.predict_graph([graph for _, _, graph in some], task="e", batch_size=BATCH)
        for (i, _, _), one in zip(some, outcome, strict=True):
            results[i] = float(one["e"])
    return [results[i] for i in range(len(crystals))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--most-atoms", type=int, default=100)
    parser.add_argument("--limit", type=int, help="crystals of each dataset, at most")
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    from chgnet.model import CHGNet

    teacher = CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
    teacher.graph_converter.set_isolated_atom_response("error")
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.datasets:
        crystals = crystals_of(name, arguments.data_dir, arguments.most_atoms)
        order = sorted(crystals)
        random.Random(0).shuffle(order)
        order = order[: arguments.limit]
        file = arguments.output / f"{name}.csv"
        refused = arguments.output / f"{name}.refused.csv"
        done = labelled(file) | labelled(refused)
        todo = [key for key in order if key not in done]
        print(f"{name}: {len(order) - len(todo):,} of {len(order):,} are done", flush=True)
        for start in range(0, len(todo), CHUNK):
            # Like sizes together: a batch takes as long as its largest graphs.
            chunk = sorted(todo[start : start + CHUNK], key=lambda key: len(crystals[key]))
            energies = predicted(teacher, [crystals[key] for key in chunk])
            both = list(zip(chunk, energies, strict=True))
            good = [(key, f"{e:.5f}") for key, e in both if not isinstance(e, Exception)]
            bad = [(key, reason_of(e)) for key, e in both if isinstance(e, Exception)]
            append(file, COLUMNS, good)
            append(refused, ("id", "reason"), bad)
            minutes = (time.monotonic() - started) / 60
            print(f"{name}: {start + len(chunk):,} of {len(todo):,}, {minutes:.1f} min", flush=True)
            if minutes > arguments.max_minutes:
                return


if __name__ == "__main__":
    main()
