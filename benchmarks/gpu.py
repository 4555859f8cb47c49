"""Everything that a GPU has to show, in one command of at most six minutes.

python benchmarks/gpu.py [--device cuda] [--seconds 360] [--out gpu.json] [--parts abcdefg]

Each part runs in a process of its own, within its share of the time, and is in the file before
the next begins: (a) the device; (b) its numbers beside the CPU's; (c) profiles of windows and of
large batches; (d) screens, one of them with a worker killed; (e) what a user reads when memory is
exhausted or a kernel fails; (f) training steps; (g) the force calculator. ``--device cpu
--seconds 120`` is a rehearsal with less of everything. The table at the end is for the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
MODEL = "jarvis-eform"
PROPERTY = "formation_energy"
SHARES = {"a": 0.05, "b": 0.14, "c": 0.17, "d": 0.32, "e": 0.07, "f": 0.15, "g": 0.1}
ROWS = 50_000

Found = dict[str, Any]


class Clock:
    """The time that a part has.

    Args:
        end: When it ends, on the clock that all processes of a machine share.
    """

    def __init__(self, end: float) -> None:
        self.end = end

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.end - time.monotonic()


def wait_for(device: str) -> None:
    """Wait until a device has done all that it was asked."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(function: Callable[[], Any], device: str, clock: Clock, repeats: int = 7) -> float:
    """Median seconds of a call, after one to warm up; fewer calls where time is short."""
    function()
    wait_for(device)
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        wait_for(device)
        found.append(time.perf_counter() - start)
        if clock.left < 2 * found[-1]:
            break
    return median(found)


def profiled(function: Callable[[], Any], device: str) -> Found:
    """Kernels of a call, and the share of its time in which one of them ran."""
    if not device.startswith("cuda"):
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        start = time.perf_counter()
        function()
        wait_for(device)
        wall = time.perf_counter() - start
    kernels = [e for e in seen.events() if str(e.device_type).endswith("CUDA")]
    busy = sum(e.device_time_total for e in kernels) / 1e6
    return {"kernels": len(kernels), "busy_share": round(busy / wall, 3)}


def examples() -> list[Any]:
    """The fifty example crystals."""
    from ase.db import connect

    return [row.toatoms() for row in connect(ROOT / "examples" / "crystals.json").select()]


def many(n: int) -> Iterator[Any]:
    """Crystals that differ a little from one another."""
    some = examples()
    for i in range(n):
        atoms = some[i % len(some)].copy()
        atoms.set_cell(atoms.cell * (1 + 1e-4 * (i // len(some))), scale_atoms=True)
        yield atoms


def large(n: int) -> list[Any]:
    """Cells of 54 atoms without symmetry."""
    from ase.build import bulk

    cells = [bulk("NaCl", "rocksalt", a=5.64).repeat((3, 3, 3)) for _ in range(n)]
    for seed, atoms in enumerate(cells):
        atoms.rattle(0.05, seed=seed)
    return cells


def about_device(device: str, clock: Clock, found: Found) -> None:
    """(a) What there is, and how long a process takes to have it."""
    start = time.perf_counter()
    import torch

    imported = time.perf_counter()
    torch.ones(1, device=device).sum().item()
    found["torch"] = torch.__version__
    found["import_s"] = round(imported - start, 2)
    found["context_s"] = round(time.perf_counter() - imported, 2)
    found["threads"] = torch.get_num_threads()
    if device.startswith("cuda"):
        about = torch.cuda.get_device_properties(device)
        free, total = torch.cuda.mem_get_info(device)
        found["name"], found["cuda"] = about.name, torch.version.cuda
        found["memory_gb"], found["free_gb"] = total / 1e9, free / 1e9
        found["multiprocessors"] = about.multi_processor_count


def agreement(device: str, clock: Clock, found: Found) -> None:
    """(b) The largest deviations from the CPU, and whether a second time gives the same bits."""
    from recinet_ase import Predictor

    small = examples() if device.startswith("cuda") else examples()[:10]
    for kind in ("float32", "float64"):
        here = Predictor(MODEL, device=device, dtype=kind)
        cpu = Predictor(MODEL, device="cpu", dtype=kind)
        for name, cells in (
            ("small", small), ("large", large(1)), ("mixed", [*small[:20], *large(1)])
        ):  # fmt: skip
            if clock.left < 1:
                found["stopped"] = "out of time"
                return
            ours, theirs = here.predict_many(cells), cpu.predict_many(cells)
            pairs = [
                (one.values[PROPERTY], two.values[PROPERTY])
                for one, two in zip(ours, theirs, strict=True)
                if not two.error
            ]
            ends = [
                (mine, right)
                for one, two in zip(ours, theirs, strict=True)
                if not two.error
                for mine, right in zip(
                    one.intervals[PROPERTY], two.intervals[PROPERTY], strict=True
                )
            ]
            found[f"{kind}_{name}"] = {
                "value_ev_atom": max(abs(a - b) for a, b in pairs),
                "interval_ev_atom": max(abs(a - b) for a, b in ends),
                "refused_alike": [o.error for o in ours] == [t.error for t in theirs],
                "same_bits_again": here.predict_many(cells) == ours,
            }


def profiles(device: str, clock: Clock, found: Found) -> None:
    """(c) Time, kernels and memory of windows of several kinds and of large batches."""
    import torch

    from recinet_ase import Predictor
    from recinet_ase.nn import reciprocal

    gpu = device.startswith("cuda")
    predictor = Predictor(MODEL, device=device)
    computation = predictor.computation
    width = predictor.models[0].config.network.width
    n, few = (512, 16) if gpu else (64, 2)
    small, big = list(many(n)), large(few)
    kinds = {f"{n} small": (small, 1), f"{few} large": (big, 1)}
    for times in (4, 16, 64) if gpu else (2,):
        kinds[f"{times * n} small"] = (small, times)
    kinds[f"{n} small, {few} large"] = ([*small, *big], 1)
    for name, (cells, times) in kinds.items():
        if clock.left < (8 if gpu else 3):
            found["stopped"] = f"out of time before {name}"
            return
        window = predictor.preparation(cells)
        start = time.process_time()
        loaded = computation.load([window.batches] * times)  # as a screen joins chunks
        loading = time.process_time() - start

        def run(loaded: Any = loaded) -> Any:
            return computation.together(loaded)

        edges = sum(
            len(graphs.centre) for batch, _ in loaded.batches for graphs in batch.graphs.values()
        )
        if gpu:
            wait_for(device)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        seconds = timed(run, device, clock)
        count = len(cells) * times
        row: Found = {
            "crystals": count,
            "batches": len(loaded.batches),
            "edges": edges,
            "ms": round(1e3 * seconds, 2),
            "structures_s": round(count / seconds),
            **profiled(run, device),
        }
        if gpu:
            used = torch.cuda.max_memory_allocated() - before
            row["bytes_per_edge_and_width"] = round(used / edges / width, 1)
        parts = run()
        start = time.process_time()
        packed = [pickle.dumps(some, protocol=5) for some in parts]
        packing = time.process_time() - start
        for some in packed:
            predictor.results_of(window, pickle.loads(some))
        reading = time.process_time() - start - packing
        row["host_us_crystal"] = {
            what: round(1e6 * spent / count, 1)
            for what, spent in (("load", loading), ("pack", packing), ("read", reading))
        }
        found[name] = row
    # Up to how many nodes a cell's waves are best taken as kernels of pairs.
    kind, loaded = torch.device(device).type, computation.load([window.batches])
    for limit in (16, 32, 64):
        if clock.left < 3:
            found["stopped"] = f"out of time before pairs of {limit} nodes"
            return
        reciprocal._PAIR_ATOMS[kind] = limit
        seconds = timed(lambda: computation.together(loaded), device, clock)
        found[f"{name}, pairs up to {limit} nodes"] = {"ms": round(1e3 * seconds, 2)}


@contextmanager
def utilisation(device: str) -> Iterator[list[float]]:
    """What nvidia-smi says of the GPU meanwhile, in per cent, twice a second."""
    found: list[float] = []
    stop = threading.Event()

    def look() -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not stop.wait(0.5):
            with suppress(OSError, ValueError, IndexError):
                done = subprocess.run(query, capture_output=True, text=True, check=False)
                found.append(float(done.stdout.split()[0]))

    thread = threading.Thread(target=look, daemon=True)
    if device.startswith("cuda"):
        thread.start()
    yield found
    stop.set()


def screens(device: str, clock: Clock, found: Found) -> None:
    """(d) ``recinet-screen``: structures a second; the same rows with a worker killed."""
    import psutil
    from ase.io import write

    gpu = device.startswith("cuda")
    rows = ROWS if gpu else 600
    found["rows"] = rows
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "many.extxyz"
        write(source, list(many(rows)), format="extxyz")
        base = [sys.executable, "-m", "recinet_ase.cli.screen", str(source), "--model", MODEL, "-q"]
        base += ["--props", PROPERTY]
        # A CPU's rehearsal goes the way of a GPU: a process for the device, and others.
        base += ["--device", device if gpu else "cpu:0"] + ([] if gpu else ["--workers", "1"])
        texts = {}
        runs: dict[str, list[str]] = {"plain": [], "intervals": ["--intervals"], "killed": []}
        for name, more in runs.items():
            if clock.left < 5:
                found["stopped"] = f"out of time before {name}"
                return
            out = Path(folder) / f"{name}.csv"
            start = time.perf_counter()
            with utilisation(device) as used:
                process = subprocess.Popen(
                    [*base, *more, "-o", str(out)], stderr=subprocess.PIPE, text=True
                )
                if name == "killed":
                    time.sleep(0.6 * found["plain"]["s"])
                    children = psutil.Process(process.pid).children(recursive=True)
                    workers = [p for p in children if "multiprocessing" in " ".join(p.cmdline())]
                    if workers:
                        workers[0].kill()  # that of the device begins first
                try:
                    _, said = process.communicate(timeout=max(5.0, clock.left))
                except subprocess.TimeoutExpired:
                    process.terminate()
                    found[name] = "out of time"
                    return
            seconds = time.perf_counter() - start
            texts[name] = out.read_text() if out.exists() else ""
            row: Found = {"s": round(seconds, 1), "structures_s": round(rows / seconds)}
            if process.returncode:
                row["said"] = said[-500:]
            if used:
                row["gpu_percent"] = round(sum(used) / len(used))
            if name == "killed":
                row["same_bytes"] = texts["killed"] == texts["plain"]
                row |= _beside(texts["killed"], texts["plain"])
            found[name] = row
        with suppress(ImportError):
            found["chgnet"] = chgnet(device, clock)


def _beside(text: str, other: str) -> Found:
    """Errors of a result, and its largest deviation from another."""
    import csv

    ours, theirs = (
        list(csv.DictReader(line for line in found.splitlines() if line[:1] != "#"))
        for found in (text, other)
    )
    pairs = [(a[PROPERTY], b[PROPERTY]) for a, b in zip(ours, theirs, strict=False)]
    return {
        "errors": sum(bool(row["error"]) for row in ours),
        "deviation_ev_atom": max(
            (abs(float(a) - float(b)) for a, b in pairs if a and b), default=0
        ),
    }


def chgnet(device: str, clock: Clock) -> Found:
    """CHGNet's energies of the same crystals, where it is installed."""
    from chgnet.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    model = CHGNet.load(use_device=device, verbose=False)
    cells = [AseAtomsAdaptor.get_structure(atoms) for atoms in many(64)]
    done, start = 0, time.perf_counter()
    while clock.left > 2 and done < ROWS and time.perf_counter() - start < 15:
        model.predict_structure(cells, task="e", batch_size=64)
        done += len(cells)
    return {"structures_s": round(done / (time.perf_counter() - start), 1), "rows": done}


def failures(device: str, clock: Clock, found: Found) -> None:
    """(e) What is said where memory is exhausted, and where a kernel fails."""
    for name, code in (("out of memory", _NO_MEMORY), ("device assert", _ASSERT)):
        command = [sys.executable, "-c", code, device, str(Path(__file__).parent)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=max(5.0, clock.left), check=False
            )
        except subprocess.TimeoutExpired:
            found[name] = "out of time"
            return
        lines = [x for x in (done.stdout + done.stderr).splitlines() if x.strip()]
        found[name] = {"exit": done.returncode, "said": lines[-1][:300] if lines else ""}


_NO_MEMORY = """
import sys
sys.path.insert(0, sys.argv[2])
import torch, gpu
from recinet_ase import Predictor
device = sys.argv[1]
predictor = Predictor(gpu.MODEL, device=device)
if device.startswith("cuda"):
    total = torch.cuda.mem_get_info(device)[1]
    torch.cuda.set_per_process_memory_fraction(48e6 / total, device)
else:
    model = predictor.models[0]
    whole = model.outcome
    def outcome(batch, *rest):
        if batch.n_crystals > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(batch, *rest)
    model.outcome = outcome
found = predictor.predict_many(list(gpu.many(100)))
errors = {f.error for f in found if f.error}
print(f"{len(found)} answers, errors: {sorted(errors) or 'none'}")
"""
_ASSERT = """
import sys
sys.path.insert(0, sys.argv[2])
import torch, gpu
from recinet_ase import Predictor
device = sys.argv[1]
predictor = Predictor(gpu.MODEL, device=device)
if device.startswith("cuda"):
    try:
        torch.zeros(3, device=device)[torch.tensor([7], device=device)].sum().item()
    except Exception:
        pass
else:
    def outcome(*_):
        raise RuntimeError("CUDA error: device-side assert triggered")
    predictor.models[0].outcome = outcome
    predictor.computation.device = torch.device("cuda")
    predictor.computation._outcomes = outcome
try:
    print({f.error for f in predictor.predict_many(list(gpu.many(5)))})
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


def training(device: str, clock: Clock, found: Found) -> None:
    """(f) Milliseconds a step, and the loss of the first steps beside the CPU's."""
    import torch

    from recinet_ase.data.conversion import build_store
    from recinet_ase.data.store import StoreSettings
    from recinet_ase.models.property_model import ModelConfig, PropertyModel
    from recinet_ase.nn.recinet import SIZES
    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.devices import make_fabric
    from recinet_ase.training.labels import Targets
    from recinet_ase.training.property_task import PropertyTask
    from recinet_ase.training.trainer import Trainer

    gpu = device.startswith("cuda")
    cells = examples() if gpu else examples()[:20]
    store = build_store(((str(i), a) for i, a in enumerate(cells)), StoreSettings())
    rows = torch.arange(512 * 4) % len(store)
    volume = torch.tensor([atoms.get_volume() / len(atoms) / 10 for atoms in cells])
    train = Targets(rows, volume[rows][:, None])
    val = Targets(rows[:20], volume[rows[:20]][:, None])

    def trainer(where: str, size: str, precision: str, batch: int, folder: str) -> Trainer:
        torch.manual_seed(0)
        model = PropertyModel(
            ModelConfig(
                "x", (PROPERTY,), ("eV/atom",), (0.0,), (1.0,), tuple(range(1, 95)), SIZES[size]
            )
        )
        config = TrainingConfig(
            properties=(PROPERTY,), epochs=100, batch_size=batch, precision=precision, dataset="x"
        )
        fabric = make_fabric(precision, "cuda" if where.startswith("cuda") else "cpu")
        task = PropertyTask(model, store, train, val, config)
        return Trainer(task, config, Path(folder), fabric)

    def steps(run: Trainer, n: int) -> list[float]:
        """Errors of so many steps, over epochs."""
        seen = []
        run._unread, run._read_every = [], sys.maxsize
        for _ in range(n):
            if run.step == run.steps_per_epoch:
                run.epoch, run.step = run.epoch + 1, 0
            run._train_step(run._epoch_order(run.epoch))
            seen.append(run._unread[-1])
            if not gpu and clock.left < 1:
                break
        return torch.stack(seen).tolist()

    n = 100 if gpu else 1
    with tempfile.TemporaryDirectory() as folder:
        for size in ("small", "paper") if gpu else ("small",):
            for precision in ("float32", "bfloat16"):
                for batch in (64, 512) if gpu else (64,):
                    name = f"{size} {precision} {batch}"
                    if clock.left < 3:
                        found["stopped"] = f"out of time before {name}"
                        return
                    run = trainer(device, size, precision, batch, folder)
                    losses = steps(run, 20 if gpu else 1)
                    wait_for(device)
                    start = time.perf_counter()
                    done = len(steps(run, n))
                    wait_for(device)
                    row: Found = {
                        "ms_step": round(1e3 * (time.perf_counter() - start) / done, 2),
                        "first_loss": losses[0],
                        "last_of_first_loss": losses[-1],
                        **profiled(lambda run=run: steps(run, 5), device),  # type: ignore[misc]
                    }
                    if gpu and batch == 64 and size == "small" and clock.left > 15:
                        other = steps(trainer("cpu", size, precision, batch, folder), 20)
                        row["cpu_last_of_first_loss"] = other[-1]
                    found[name] = row


def forces(device: str, clock: Clock, found: Found) -> None:
    """(g) The force calculator: deviations from the CPU, and milliseconds a call."""
    import numpy as np
    from ase.build import bulk

    from recinet_ase.forces.calculator import ReciNetForceCalculator

    def cell(repeat: int, seed: int = 0) -> Any:
        atoms = bulk("Si", cubic=True).repeat(repeat)
        atoms.rattle(0.05, seed=seed)
        return atoms

    here = ReciNetForceCalculator("mlearn-pes", device=device)
    cpu = ReciNetForceCalculator("mlearn-pes", device="cpu")
    sets = {"8 atoms": [cell(1)], "64 atoms": [cell(2)], "512 atoms": [cell(4)]}
    sets["32 cells of 64"] = [cell(2, seed) for seed in range(32)]
    if not device.startswith("cuda"):
        sets = {"8 atoms": [cell(1)], "4 cells of 8": [cell(1, seed) for seed in range(4)]}
    for name, cells in sets.items():
        if clock.left < 3:
            found["stopped"] = f"out of time before {name}"
            return
        ours, theirs = list(here.many(cells)), list(cpu.many(cells))
        found[name] = {
            "force_deviation_ev_a": max(
                float(np.abs(a["forces"] - b["forces"]).max())
                for a, b in zip(ours, theirs, strict=True)
            ),
            "ms": round(1e3 * timed(lambda c=cells: list(here.many(c)), device, clock), 2),  # type: ignore[misc]
            **profiled(lambda c=cells: list(here.many(c)), device),  # type: ignore[misc]
        }


class Saved(dict[str, Any]):
    """Results that are in a file as soon as they are known.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def __setitem__(self, key: str, value: Any) -> None:
        """Set and write."""
        super().__setitem__(key, value)
        part = self.path.with_suffix(".unfinished")
        part.write_text(json.dumps(self))
        part.replace(self.path)


PARTS: dict[str, Callable[[str, Clock, Found], None]] = {
    "a": about_device, "b": agreement, "c": profiles, "d": screens, "e": failures, "f": training,
    "g": forces,
}  # fmt: skip


def table(found: Found) -> str:
    """The results as a table: part, what, figures."""
    lines = ["| part | what | figures |", "|---|---|---|"]

    def short(value: Any) -> str:
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, dict):
            return ", ".join(f"{key} {short(part)}" for key, part in value.items())
        return str(value).replace("|", "/")

    for part, results in found["parts"].items():
        rest = {key: value for key, value in results.items() if not isinstance(value, dict)}
        if rest:
            lines.append(f"| {part} | | {short(rest)} |")
        for key, value in results.items():
            if isinstance(value, dict):
                lines.append(f"| {part} | {key} | {short(value)} |")
    return "\n".join(lines)


def main() -> None:
    """All parts, one after the other; with ``--part`` one of them, here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=360.0, help="for all parts together")
    parser.add_argument("--parts", default="".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        PARTS[arguments.part](arguments.device, Clock(arguments.until), Saved(arguments.out))
        return
    end = time.monotonic() + arguments.seconds
    report: Found = {"device": arguments.device, "seconds": arguments.seconds, "parts": {}}
    for i, part in enumerate(arguments.parts):
        start = time.monotonic()
        # What the parts before have left over is shared by all that follow.
        limit = (end - start) * SHARES[part] / sum(SHARES[p] for p in arguments.parts[i:])
        result = arguments.out.with_suffix(f".{part}.part")
        command = [sys.executable, __file__, "--part", part, "--device", arguments.device]
        # It begins nothing new after nine tenths of its time.
        command += ["--until", str(start + 0.9 * limit), "--out", str(result)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, text = process.communicate(timeout=limit)
            said = text.strip().splitlines()
            found = {"failed": said[-1] if said else ""} if process.returncode else {}
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            process.communicate()
            found = {"failed": f"took more than {limit:.0f} s"}
        if result.exists():
            found = json.loads(result.read_text()) | found
            result.unlink()
        report["parts"][part] = found | {"seconds": round(time.monotonic() - start, 1)}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
        print(f"({part}) {report['parts'][part]['seconds']} s", file=sys.stderr)
    print(table(report))


if __name__ == "__main__":
    main()
