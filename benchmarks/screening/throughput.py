"""Screening a database end to end, against rivals, in one run.

    python benchmarks/screening/throughput.py --data-dir DIR [--count 5000] [--rounds 3]
        [--chgnet-python PY] [--alignn-python PY] [--megnet-python PY]

Every program gets the same ASE database of real crystals of 8 to 12 atoms and two threads or
worker processes (``--cores``), and is timed from before the first structure is read to after
the last number, without the start of the interpreter (``in all`` has that too). Rivals run
in the interpreters given, on fewer crystals (their rate does not depend on it) after a few to
warm up, each in the way its documentation advises, with one thread or all, whichever is
faster. All take turns for some rounds, and the best rate of each counts. Prints rates, ratios,
peak memory and the shares of reading, graphs and network. ``--rounds 0`` measures only what the
processes around a GPU spend.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from ase.db import connect

from recinet_ase import StructureError
from recinet_ase.data.published import JARVIS
from recinet_ase.graph.adapters import to_crystal

RIVALS = ("chgnet", "alignn", "megnet")
RIVAL_SCRIPT = Path(__file__).with_name("throughput_rivals.py")


@dataclass(frozen=True)
class Rate:
    """What one program did: structures a second, peak memory in MiB, threads or workers."""

    what: str
    rate: float
    peak: float
    threads: int
    in_all: float = 0.0


def keep(best: dict[str, Rate], name: str, found: Rate) -> None:
    """The faster one; the larger memory of both."""
    other = best.setdefault(name, found)
    faster = max(other, found, key=lambda one: one.rate)
    best[name] = replace(faster, peak=max(other.peak, found.peak))


def write_database(path: Path, data_dir: str | None, count: int, atoms: tuple[int, int]) -> int:
    """Crystals of JARVIS of the given size, again and again if there are not enough."""
    found = []
    for record in JARVIS.records(data_dir).values():
        if atoms[0] <= len(record["atoms"]["elements"]) <= atoms[1]:
            try:
                found.append(to_crystal(record).to_ase())
            except StructureError:
                continue
        if len(found) == count:
            break
    with connect(path) as database:
        for i in range(count):
            database.write(found[i % len(found)])
    return len(found)


def random_model(folder: Path, size: str) -> Path:
    """A model of a size that is not shipped, with random weights: only its speed counts."""
    import torch

    from recinet_ase.models.property_model import ModelConfig, PropertyModel
    from recinet_ase.nn.recinet import SIZES

    torch.manual_seed(0)
    config = ModelConfig(
        name=size, properties=("bandgap",), units=("eV",), network=SIZES[size],
        elements=tuple(range(1, 95)), mean=(0.0,), std=(1.0,),
    )  # fmt: skip
    PropertyModel(config).eval().save(folder / size)
    return folder / size


def timed(command: list[str], cores: int) -> tuple[float, float, str]:
    """Seconds, peak memory in MiB over all processes of the command, and its last output."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores)}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak = 0.0
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(1.0):  # a look takes the process's memory lock
            total = 0
            try:
                family = [psutil.Process(process.pid)]
                family += family[0].children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            for one in family:
                try:
                    total += one.memory_full_info().pss  # shared pages count once
                except psutil.Error:
                    continue
            peak = max(peak, total / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    seconds = time.perf_counter() - start
    stop.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}\n{err}")
    return seconds, peak, (out.strip() or err.strip()).splitlines()[-1]


def ours(path: Path, count: int, arguments: list[str], cores: int) -> tuple[float, float, float]:
    """Seconds of screening, seconds in all, peak memory."""
    out = path.with_suffix(".csv")
    command = [sys.executable, "-m", "recinet_ase.cli.screen", str(path), *arguments]
    command += ["-o", str(out), "--device", "cpu", "-q", "--workers", str(cores)]
    in_all, peak, last = timed(command, 1)
    assert last.startswith(f"{count} structures"), last
    meta = json.loads(out.with_suffix(".csv.meta.json").read_text())
    return meta["seconds"], in_all, peak


def shares(path: Path, arguments: list[str], count: int) -> str:
    """Milliseconds a crystal of one core for reading, graphs and network."""
    import torch

    from recinet_ase import Predictor
    from recinet_ase.io import chunks, find_sources, read_chunk

    torch.set_num_threads(1)
    predictor = Predictor(arguments, device="cpu", intervals=False)
    spent = [0.0, 0.0, 0.0]
    for _ in range(2):  # the first round warms up
        spent = [0.0, 0.0, 0.0]
        for chunk in chunks(find_sources([str(path)])):
            if 512 * chunk.number >= min(count, 2048):
                break
            t0 = time.process_time()
            structures = [entry.atoms for entry in read_chunk(chunk)]
            t1 = time.process_time()
            window = predictor.preparation(structures)
            t2 = time.process_time()
            predictor.run(window)
            t3 = time.process_time()
            for i, step in enumerate((t1 - t0, t2 - t1, t3 - t2)):
                spent[i] += step
    n = min(count, 2048)
    reading, graphs, network = (1e3 * s / n for s in spent)
    total = reading + graphs + network
    return (
        f"one core, ms a crystal: reading {reading:.2f} ({reading / total:.0%}), "
        f"graphs {graphs:.2f} ({graphs / total:.0%}), network {network:.2f} ({network / total:.0%})"
    )


def beside_network(path: Path, name: str, count: int) -> str:
    """What the processes around a GPU spend on a crystal, with intervals, its kernels apart."""
    import torch

    from recinet_ase.io import chunks, find_sources
    from recinet_ase.screening.execution.chunk import computing, prepare_packed, read_packed
    from recinet_ase.screening.execution.spec import ScreenSpec, loaded_predictor, result_columns
    from recinet_ase.screening.journal import Journal
    from recinet_ase.screening.output.writers import open_writer

    torch.set_num_threads(1)
    spec = ScreenSpec((name,), ("bandgap",), intervals=True)
    predictor = loaded_predictor(spec)
    parts = [c for c in chunks(find_sources([str(path)])) if 512 * c.number < min(count, 2048)]
    packed = [prepare_packed(predictor.preparation, None, chunk) for chunk in parts]
    computation, work = predictor.computation, computing(spec)
    known: dict[int, Any] = {}
    network = computation._outcomes

    def answered(batch: Any, graphs: Any) -> Any:
        if len(batch) not in known:
            known[len(batch)] = network(batch, batch.graphs)
        return known[len(batch)]

    computation._outcomes = answered  # type: ignore[method-assign]
    # All chunks in one batch, as on a GPU, whose sizes are counted before it is sent.
    computation.device, computation._most_edges = torch.device("cuda"), math.inf
    computation._moved = lambda batch: [graphs.sizes for graphs in batch.graphs.values()]  # type: ignore[method-assign, assign, return-value]
    for _ in range(2):
        times = [time.process_time()]
        loaded = work.load([graphs for _, graphs in packed], "cpu")
        times.append(time.process_time())
        found = work.compute(loaded, "cpu")
        times.append(time.process_time())
        computed = work.pack(found)
        times.append(time.process_time())
        pairs = zip(packed, computed, strict=True)
        done = [read_packed(spec, (rest, parts)) for (rest, _), parts in pairs]
        times.append(time.process_time())
    n = sum(len(rows.rows) for rows in done)
    with tempfile.TemporaryDirectory() as folder:
        names = result_columns(predictor)
        start = time.process_time()
        journal = Journal(Path(folder) / "out.part", {"columns": names, "id_key": None})
        for rows in done:
            journal.append(rows)
        with open_writer(Path(folder) / "out.csv", names) as writer:
            for row in journal.table({}, [], 512).rows():
                writer.write(row)
        writing = time.process_time() - start
        journal.close()
    size = sum(len(graphs) for _, graphs in packed) / n / 1e3
    load, divide, pack, reading = (1e6 * (b - a) / n for a, b in pairwise(times))
    return (
        f"beside the network, microseconds a crystal: a GPU's process {divide:.1f}, its threads "
        f"{load:.1f} before and {pack:.1f} after it, the workers that make rows of its answers "
        f"{reading:.0f}, the process that writes {1e6 * writing / n:.0f}; {size:.1f} kB of graphs "
        "between them"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--rival-count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--atoms", type=int, nargs=2, default=[8, 12])
    parser.add_argument("--cores", type=int, default=2)
    for rival in RIVALS:
        parser.add_argument(f"--{rival}-python")
    parser.add_argument("--no-shares", action="store_true")
    arguments = parser.parse_args()
    count, cores = arguments.count, arguments.cores
    pythons = {rival: getattr(arguments, f"{rival}_python") for rival in RIVALS}
    pythons = {rival: python for rival, python in pythons.items() if python}
    with tempfile.TemporaryDirectory() as folder:
        path, few = Path(folder) / "crystals.db", Path(folder) / "few.db"
        distinct = write_database(path, arguments.data_dir, count, tuple(arguments.atoms))
        write_database(few, arguments.data_dir, arguments.rival_count, tuple(arguments.atoms))
        print(f"{count} crystals ({distinct} distinct), {cores} cores", flush=True)
        if not arguments.rounds:
            print(beside_network(path, "jarvis-mbj", count))
            return
        programs = {
            "tiny size": [str(random_model(Path(folder), "tiny"))],
            "jarvis-mbj (small)": ["jarvis-mbj"],
            "jarvis-mbj + jarvis-ehull": ["jarvis-mbj", "jarvis-ehull"],
            "paper size": [str(random_model(Path(folder), "paper"))],
        }
        best: dict[str, Rate] = {}
        for _ in range(arguments.rounds):
            for name, models in programs.items():
                flags = [part for model in models for part in ("--model", model)]
                seconds, in_all, peak = ours(path, count, flags, cores)
                keep(best, name, Rate(name, count / seconds, peak, cores, count / in_all))
            for rival, python in pythons.items():
                for threads in sorted({1, cores}):  # small graphs often run faster with one
                    _, peak, line = timed([python, str(RIVAL_SCRIPT), rival, str(few)], threads)
                    found = json.loads(line)
                    rate = found["structures"] / found["seconds"]
                    keep(best, rival, Rate(found["what"], rate, peak, threads))
        for name, models in programs.items():
            mine = best[name]
            against = (f"{rival} {mine.rate / best[rival].rate:.1f} x" for rival in pythons)
            print(
                f"{name}: {mine.rate:.0f} structures/s ({mine.in_all:.0f} with the start of the "
                f"program), peak memory {mine.peak:.0f} MiB; {', '.join(against)}"
            )
            if not arguments.no_shares:
                print("   ", shares(path, models, count), flush=True)
        if not arguments.no_shares:
            print(beside_network(path, "jarvis-mbj", count), flush=True)
        for rival in pythons:
            found_best = best[rival]
            print(
                f"{found_best.what}: {found_best.rate:.1f} structures/s with "
                f"{found_best.threads} threads, peak memory {found_best.peak:.0f} MiB"
            )


if __name__ == "__main__":
    main()
