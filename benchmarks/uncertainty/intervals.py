"""Cost of intervals and warnings: processor time of the Predictor with and without them.

python benchmarks/uncertainty/intervals.py --data-dir DIR [--models jarvis-mbj] [--count 1500]
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

import torch

from recinet_ase import Predictor
from recinet_ase.data.catalogue import open_dataset
from recinet_ase.graph.adapters import to_crystal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--models", nargs="+", default=["jarvis-mbj"])
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    stream = open_dataset("jarvis", arguments.data_dir).structures()
    atoms = [to_crystal(s).to_ase() for _, s in islice(stream, arguments.count)]
    predictors = {
        flag: Predictor(arguments.models, device="cpu", intervals=flag) for flag in (False, True)
    }
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(arguments.rounds):
        for flag, predictor in predictors.items():  # in turn: a busy machine hits both alike
            start = time.process_time()
            predictor.predict_many(atoms)
            seconds[flag].append(time.process_time() - start)
    plain, judged = (min(seconds[flag]) for flag in (False, True))
    print(
        f"{len(atoms)} crystals, {', '.join(arguments.models)}: {plain:.2f} s without, "
        f"{judged:.2f} s with intervals, {100 * (judged / plain - 1):+.1f} %"
    )


if __name__ == "__main__":
    main()
