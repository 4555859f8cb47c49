"""Time and memory of a step against atoms per cell and batch size, with and without waves.

    OMP_NUM_THREADS=1 python benchmarks/training/cost_curve.py --data-dir DIR -o cost_curve

Full graphs of JARVIS crystals (supercells where JARVIS has none of the size), about 500 atoms
a step, so that what changes from point to point is the size of the cell alone; then batches
of 10-atom crystals, full and symmetry-reduced as in training. On full graphs the wave kernels
are part of the step; on reduced ones they come from the packed store. Times are medians of
CPU seconds, the two variants taking turns; memory is the growth of the resident set at its
highest (Linux). Writes PREFIX.csv and PREFIX.png.

Without --data-dir the 50 example crystals are used.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch_geometric.data import Batch

from recinet_ase import StructureError
from recinet_ase.data.conversion import build_store
from recinet_ase.data.store import StoreSettings
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import Crystal, neighbours_of
from recinet_ase.graph.geometric import build_graph
from recinet_ase.nn.recinet import SIZES, ReciNet

ATOMS = (2, 4, 8, 10, 16, 32, 64, 128, 256, 500)
BATCHES = (1, 4, 16, 64, 256)
ATOMS_A_STEP = 500
VARIANTS = ("lattice", "none")
Row = dict[str, Any]


def load(data_dir: str | None) -> dict[int, list[Crystal]]:
    """Crystals by number of atoms."""
    if data_dir is None:
        from ase.db import connect

        path = Path(__file__).parents[2] / "examples" / "crystals.json"
        structures = [row.toatoms() for row in connect(path).select()]
    else:
        from recinet_ase.data.published import JARVIS

        structures = list(JARVIS.records(data_dir).values())
    found: dict[int, list[Crystal]] = {}
    for structure in structures:
        try:
            crystal = to_crystal(structure)
            if len(found.setdefault(len(crystal), [])) < max(BATCHES):
                neighbours_of(crystal)
                found[len(crystal)].append(crystal)
        except StructureError:
            continue
    return found


def of_size(crystals: dict[int, list[Crystal]], n_atoms: int, count: int) -> list[Crystal]:
    """Crystals of that many atoms; supercells, then repetitions, make up the number."""
    chosen = crystals.get(n_atoms, [])[:count]
    sizes = sorted(n for n in crystals if n < n_atoms and n_atoms % n == 0 and crystals[n])
    while not chosen and sizes:
        base = sizes.pop()
        for crystal in crystals[base][:count]:
            chosen.append(to_crystal(crystal.to_ase().repeat(near_cube(n_atoms // base))))
    return [chosen[i % len(chosen)] for i in range(count)]


def near_cube(copies: int) -> tuple[int, int, int]:
    """Factors of a number of copies, as equal as they can be."""
    divisors = [d for d in range(1, copies + 1) if copies % d == 0]
    triples = [
        (a, b, copies // a // b) for a, b in product(divisors, divisors) if copies % (a * b) == 0
    ]
    return min(triples, key=sum)


def network(size: str, reciprocal: str) -> ReciNet:
    torch.manual_seed(0)
    return ReciNet(replace(SIZES[size], reciprocal=reciprocal))


def reduced_batch(crystals: list[Crystal], net: ReciNet) -> CrystalBatch:
    """Symmetry-reduced graphs with their kernels, as a training step gets them."""
    config = net.config
    settings = StoreSettings(k_max=config.k_max, n_waves=config.n_waves, wave_norm=config.wave_norm)
    store = build_store(((str(i), c.to_ase()) for i, c in enumerate(crystals)), settings)
    return store.batch(torch.arange(len(store)), pad=True)


def training(net: ReciNet, batch: CrystalBatch) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    net.train()

    def step() -> None:
        loss = (net(batch) - 1.0).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if not torch.isfinite(loss):
            raise RuntimeError("the loss is not finite")

    return step


def inference(net: ReciNet, batch: CrystalBatch) -> Callable[[], object]:
    def step() -> None:
        net.eval()
        with torch.no_grad():
            net(batch)

    return step


def interleaved(steps: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median CPU milliseconds of each, taking turns."""
    times: dict[str, list[float]] = {key: [] for key in steps}
    for step in steps.values():
        step()
    stop = time.process_time() + seconds
    while time.process_time() < stop or not times[next(iter(times))]:
        for key, step in steps.items():
            start = time.process_time()
            step()
            times[key].append((time.process_time() - start) * 1e3)
    return {key: median(values) for key, values in times.items()}


def growth(step: Callable[[], object]) -> float:
    """MiB by which a call makes the resident set grow at its highest (NaN off Linux)."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # memory kept by the allocator would hide the growth
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before = _status("VmRSS")
        step()
        return (_status("VmHWM") - before) / 1024
    except (OSError, AttributeError):
        return float("nan")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def measure(crystals: list[Crystal], size: str, graphs: str, seconds: float) -> list[Row]:
    """Rows of one batch, with and without the reciprocal block."""
    nets = {name: network(size, name) for name in VARIANTS}
    if graphs == "full":
        graphs = [build_graph(c) for c in crystals]
        batch = CrystalBatch.from_data(Batch.from_data_list(graphs))
    else:
        batch = reduced_batch(crystals, nets["lattice"])
    train = {name: training(net, batch) for name, net in nets.items()}
    infer = {name: inference(net, batch) for name, net in nets.items()}
    infer_ms = interleaved(infer, seconds)
    infer_mb = {name: growth(step) for name, step in infer.items()}
    for net in nets.values():
        net.train()
    train_ms = interleaved(train, seconds)
    train_mb = {name: growth(step) for name, step in train.items()}
    return [
        {
            "graphs": graphs,
            "reciprocal": name,
            "atoms_per_cell": len(crystals[0]),
            "crystals": len(crystals),
            "edges": len(batch.distance),
            "train_ms": round(train_ms[name], 2),
            "inference_ms": round(infer_ms[name], 2),
            "train_mib": round(train_mb[name], 1),
            "inference_mib": round(infer_mb[name], 1),
        }
        for name in VARIANTS
    ]


def show(sweep: str, rows: list[Row]) -> list[Row]:
    with_waves, without = rows
    share = 1 - without["train_ms"] / with_waves["train_ms"]
    print(
        f"{sweep:6s} {with_waves['graphs']:8s} {with_waves['atoms_per_cell']:4d} atoms "
        f"x {with_waves['crystals']:3d}: training {with_waves['train_ms']:8.1f} ms "
        f"{with_waves['train_mib']:7.1f} MiB, inference {with_waves['inference_ms']:8.1f} ms "
        f"{with_waves['inference_mib']:7.1f} MiB; reciprocal block {share:.0%} of training, "
        f"{1 - without['inference_ms'] / with_waves['inference_ms']:.0%} of inference",
        flush=True,
    )
    return [{"sweep": sweep, **row} for row in rows]


def plot(rows: list[Row], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    for column, (sweep, x_key, label) in enumerate(
        (("atoms", "atoms_per_cell", "atoms per cell"), ("batch", "crystals", "crystals a batch"))
    ):
        chosen = [row for row in rows if row["sweep"] == sweep]
        for graphs, reciprocal in product(("full", "reduced"), VARIANTS):
            line = [r for r in chosen if (r["graphs"], r["reciprocal"]) == (graphs, reciprocal)]
            if not line:
                continue
            name = f"{graphs} graphs, {'with' if reciprocal == 'lattice' else 'without'} waves"
            style = "-" if reciprocal == "lattice" else "--"
            x = [row[x_key] for row in line]
            for axis, ms, mib in ((axes[0], "train_ms", ""), (axes[1], "", "train_mib")):
                y = [row[ms or mib] / row["crystals"] for row in line]
                axis[column].plot(x, y, style, marker="o", label=name)
        for axis, unit in ((axes[0], "ms"), (axes[1], "MiB")):
            axis[column].set(xscale="log", yscale="log", xlabel=label)
            axis[column].set_ylabel(f"{unit} a crystal, training step")
            axis[column].legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir")
    parser.add_argument("-o", "--output", type=Path, default=Path("cost_curve"), metavar="PREFIX")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU time of each measurement")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--atoms", type=int, nargs="+", default=ATOMS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    crystals = load(arguments.data_dir)
    rows: list[Row] = []
    for n_atoms in arguments.atoms:
        batch = of_size(crystals, n_atoms, max(1, ATOMS_A_STEP // n_atoms))
        rows += show("atoms", measure(batch, arguments.size, "full", arguments.seconds))
    for graphs, count in product(("full", "reduced"), arguments.batches):
        batch = of_size(crystals, 10, count)
        rows += show("batch", measure(batch, arguments.size, graphs, arguments.seconds))
    with arguments.output.with_suffix(".csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, arguments.output.with_suffix(".png"))
    largest = max(row["atoms_per_cell"] for row in rows)
    print(f"size {arguments.size}: a cell of {largest} atoms trains")


if __name__ == "__main__":
    main()
