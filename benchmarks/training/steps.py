"""Speed of training beside the paper's formulation, ALIGNN and MEGNet, in one run.

    OMP_NUM_THREADS=1 python benchmarks/training/steps.py --data-dir DIR \
        --alignn-python /path/to/alignn-venv/bin/python

All train on the same seeded sample of the JARVIS formation-energy training split, batch 64,
through their own graphs, collation, loss, loop and optimiser:

* recinet: the package's Trainer on symmetry-reduced graphs;
* naive: the paper's equations as printed, full graphs (benchmarks/training/naive.py), float32;
* alignn: its published size (4 + 4 layers, 256 wide, 4.0 M parameters) through its graph
  builder (12 neighbours), LMDB data set and `train_dgl`; bond angles between bonds up to
  3.5 A (the package's default) or between all bonds (as published);
* megnet: matgl's MEGNet with default sizes through Lightning.

Each runs in its own process; they take turns, a few steps at a time, so that another job on
the machine disturbs all alike. Ratios are of CPU seconds (every trainer has the same number
of threads and no loader processes; with one thread CPU time is the wall time of an idle
machine); wall time is printed beside. An epoch is 44,514 crystals, extrapolated from the
time per crystal. Peaks are measured on 2048 x 2048 products in the same rounds.

Rivals are optional. matgl is an extra of this package (`pip install recinet-ase[matgl]`).
ALIGNN is best kept in an environment of its own; a CPU build of PyTorch first, so that pip
does not choose a CUDA one:

    python3 -m venv alignn-venv
    alignn-venv/bin/pip install torch==2.13.0 --index-url <your CPU wheels>
    echo torch==2.13.0 > pin.txt && alignn-venv/bin/pip install -c pin.txt alignn==2026.8.11
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

EPOCH = 44_514  # crystals of the JARVIS formation-energy training split
FULL = {
    "ours, paper size, bfloat16": "recinet:paper:bfloat16:",
    "ours, paper size, float32": "recinet:paper:float32:",
    "ours, small, bfloat16": "recinet:small:bfloat16:",
    "ours, small, float32": "recinet:small:float32:",
    "ours, paper size, float32, full graphs": "recinet:paper:float32:full",
    "(a) paper's formulation, naive": "naive",
    "(b) ALIGNN, angles within 3.5 A": "alignn:3.5",
    "(b) ALIGNN, all angles": "alignn:all",
    "(c) MEGNet (matgl)": "megnet",
}
REFERENCES = ("ours, paper size, bfloat16", "ours, paper size, float32")


@dataclass
class Contender:
    """A worker process and what it measured."""

    label: str
    process: subprocess.Popen[str]
    hello: dict[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, float]] = field(default_factory=list)
    flops: float = 0.0

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for what it measured."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line that the worker sends."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.label} stopped; its output is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def per_crystal(self, what: str) -> float:
        """Median over the rounds of a time per crystal, in seconds."""
        return median(r[what] / r["crystals"] for r in self.rounds)


def draw_sample(data_dir: str | None, count: int, seed: int) -> dict[str, Any]:
    """Crystals of the training split that our graphs do not refuse."""
    from recinet_ase import StructureError
    from recinet_ase.data.published import JARVIS
    from recinet_ase.graph.adapters import to_crystal
    from recinet_ase.graph.crystal import neighbours_of
    from recinet_ase.properties import get_property_info

    labels = JARVIS.split(get_property_info("formation_energy"), data_dir).train
    records = JARVIS.records(data_dir)
    ids = sorted(key for key in labels if key in records)
    random.Random(seed).shuffle(ids)
    sample: dict[str, Any] = {"ids": [], "records": [], "labels": []}
    for key in ids:
        record = {"jid": key, "atoms": records[key]["atoms"]}
        try:
            neighbours_of(to_crystal(record))
        except StructureError:
            continue
        sample["ids"].append(key)
        sample["records"].append(record)
        sample["labels"].append(labels[key])
        if len(sample["ids"]) == count:
            break
    return sample


def start(label: str, sample: Path, python: str, threads: int, log: Any) -> Contender | None:
    """Start a worker and wait until it is prepared; None if its package is missing."""
    worker = Path(__file__).with_name("workers.py")
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONWARNINGS": "ignore",
        "TMPDIR": str(sample.parent),
    }
    if python == sys.executable:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    else:
        environment.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        [python, str(worker), FULL[label], str(sample)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env=environment,
    )
    contender = Contender(label, process)
    contender.hello = contender.answer()
    if "not_installed" in contender.hello:
        print(f"{label}: not installed ({contender.hello['not_installed']})")
        process.wait()
        return None
    return contender


def peak(kind: torch.dtype, size: int) -> float:
    """Matrix-product rate of this process in FLOP/s of CPU time."""
    a, b = torch.randn(2, size, size).to(kind)
    a @ b
    start = time.process_time()
    for _ in range(3):
        a @ b
    return 3 * 2 * size**3 / (time.process_time() - start)


def report(contenders: list[Contender], peaks: dict[str, float], threads: int) -> None:
    columns = ("crystals/s", "s/epoch", "wall s/epoch", "loading", "of peak", "params", "MB")
    print(f"\n{'':40s}" + "".join(f"{c:>13s}" for c in columns))
    by_label = {c.label: c for c in contenders}
    for c in contenders:
        cpu, wall = c.per_crystal("cpu") / threads, c.per_crystal("wall")
        kind = "bfloat16" if "bfloat16" in c.label else "float32"
        share = c.flops / cpu / (peaks[kind] * threads)
        cells = (
            f"{1 / cpu:.0f}",
            f"{cpu * EPOCH:.0f}",
            f"{wall * EPOCH:.0f}",
            f"{c.per_crystal('loading') / c.per_crystal('cpu'):.1%}",
            f"{share:.0%} {kind[:5]}",
            f"{c.hello['parameters'] / 1e6:.2f} M",
            f"{max(r['memory'] for r in c.rounds):.0f}",
        )
        print(f"{c.label:40s}" + "".join(f"{cell:>13s}" for cell in cells))
    for name in REFERENCES:
        if name not in by_label:
            continue
        ours = by_label[name]
        print(f"\ntimes as long as {name}:")
        for c in contenders:
            each = [
                (theirs["cpu"] / theirs["crystals"]) / (mine["cpu"] / mine["crystals"])
                for theirs, mine in zip(c.rounds, ours.rounds, strict=True)
            ]
            spread = f"({min(each):.2f} to {max(each):.2f})"
            print(f"  {c.label:40s} {median(each):7.2f}   {spread}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--count", type=int, default=1024, help="crystals of the sample")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each trainer, a round")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", 1)))
    parser.add_argument("--alignn-python", default=sys.executable)
    parser.add_argument("--only", help="labels that contain one of these, separated by ;")
    parser.add_argument("--peak-size", type=int, default=2048)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", default=os.devnull, help="file for what the trainers print")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    words = (arguments.only or "").split(";")
    labels = [label for label in FULL if any(word in label for word in words)]

    sample = draw_sample(arguments.data_dir, arguments.count, arguments.seed)
    sample |= {"batch_size": arguments.batch_size, "threads": arguments.threads}
    contenders: list[Contender] = []
    peaks: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    with tempfile.TemporaryDirectory() as folder, Path(arguments.log).open("a") as log:
        path = Path(folder) / "sample.json"
        path.write_text(json.dumps(sample), encoding="utf-8")
        try:
            for label in labels:
                python = arguments.alignn_python if "ALIGNN" in label else sys.executable
                if (found := start(label, path, python, arguments.threads, log)) is not None:
                    contenders.append(found)
            measure(contenders, arguments, peaks)
        except KeyboardInterrupt:
            print("interrupted: what follows is of the rounds that were complete")
        finally:
            for c in contenders:
                c.process.kill()
                c.process.wait()
    if not contenders or not contenders[0].rounds:
        return
    atoms = sum(len(r["atoms"]["elements"]) for r in sample["records"]) / len(sample["ids"])
    print(
        f"{len(sample['ids'])} JARVIS crystals, mean {atoms:.1f} atoms, "
        f"batch {arguments.batch_size}; {arguments.threads} thread(s) each, taking turns, "
        f"{len(contenders[0].rounds)} rounds, medians"
    )
    print(f"{processor()}; Python {platform.python_version()}, torch {torch.__version__}")
    print("; ".join(dict.fromkeys(c.hello["version"] for c in contenders)))
    best = {kind: median(values) for kind, values in peaks.items()}
    print("peak: " + ", ".join(f"{kind} {best[kind] / 1e9:.0f} GFLOP/s" for kind in best))
    print(f"load of the machine at the end: {os.getloadavg()[0]:.1f}")
    report(contenders, best, arguments.threads)


def measure(
    contenders: list[Contender], arguments: argparse.Namespace, peaks: dict[str, list[float]]
) -> None:
    """Warm up, count operations, then take turns."""
    steps = {}
    for c in contenders:
        c.ask("1")
        counted = c.ask("flops 2")
        c.flops = counted["flops"] / counted["crystals"]
        trial = c.ask("2")
        steps[c.label] = max(2, round(2 * arguments.seconds / max(trial["cpu"], 1e-6)))
    for _ in range(arguments.rounds):
        for kind in peaks:
            peaks[kind].append(peak(getattr(torch, kind), arguments.peak_size))
        found = [c.ask(str(steps[c.label])) for c in contenders]
        for c, one in zip(contenders, found, strict=True):
            c.rounds.append(one)


def processor() -> str:
    """Model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


if __name__ == "__main__":
    main()
