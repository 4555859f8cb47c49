"""Peak memory of a screen against the number of structures.

    python benchmarks/screening/memory.py [--most 1000000] [--workers 2] [--input extxyz]

Cycles the small crystals of `examples/` in one extended xyz file or ASE sqlite database of
growing length, screens it with jarvis-mbj, and prints the rate and the largest memory
(proportional set size) of the main process and of all processes together.
"""

from __future__ import annotations

import argparse
import io
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.io
import psutil
from ase import Atoms
from ase.db import connect

EXAMPLES = Path(__file__).parents[2] / "examples" / "crystals.json"


def small_crystals(most_atoms: int = 4) -> list[Atoms]:
    rows = connect(EXAMPLES).select()
    return [row.toatoms() for row in rows if row.natoms <= most_atoms]


def write_extxyz(path: Path, count: int) -> None:
    frames = []
    for atoms in small_crystals():
        text = io.StringIO()
        ase.io.write(text, atoms, format="extxyz")
        frames.append(text.getvalue())
    whole, rest = divmod(count, len(frames))
    with path.open("w", encoding="utf-8") as handle:
        for _ in range(whole):
            handle.writelines(frames)
        handle.writelines(frames[:rest])


def write_database(path: Path, count: int) -> None:
    """ASE writes the first rows; sqlite copies them, which takes seconds instead of an hour."""
    path.unlink(missing_ok=True)
    with connect(path) as database:
        for atoms in small_crystals()[:count]:
            database.write(atoms)
    with sqlite3.connect(path) as copies:
        names = [row[1] for row in copies.execute("PRAGMA table_info(systems)")]
        rest = ", ".join(name for name in names if name not in ("id", "unique_id"))
        (rows,) = copies.execute("SELECT COUNT(*) FROM systems").fetchone()
        while rows < count:
            more = min(rows, count - rows)
            copies.execute(
                f"INSERT INTO systems (unique_id, {rest}) "
                f"SELECT lower(hex(randomblob(16))), {rest} FROM systems ORDER BY id LIMIT {more}"
            )
            rows += more
    copies.close()


WRITERS = {"extxyz": write_extxyz, "db": write_database}


def peak_memory(command: list[str]) -> tuple[float, float, float]:
    """Seconds, and peak MiB of the main process and of all."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    main = every = 0.0
    while process.poll() is None:
        time.sleep(1.0)
        try:
            family = [psutil.Process(process.pid)]
            sizes = [p.memory_full_info().pss for p in family + family[0].children(recursive=True)]
        except psutil.Error:
            continue
        main, every = max(main, sizes[0] / 2**20), max(every, sum(sizes) / 2**20)
    if process.returncode:
        assert process.stderr is not None
        raise SystemExit(process.stderr.read().decode())
    return time.perf_counter() - start, main, every


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--input", choices=WRITERS, default="extxyz")
    arguments = parser.parse_args()
    print("| structures | structures/s, start included | main process, MiB | all, MiB |")
    print("|---|---|---|---|")
    count = 1000
    with tempfile.TemporaryDirectory() as folder:
        while count <= arguments.most:
            path = Path(folder) / f"cycle.{arguments.input}"
            WRITERS[arguments.input](path, count)
            screen = [sys.executable, "-m", "recinet_ase.cli.screen", str(path), "-q"]
            screen += ["--model", "jarvis-mbj", "--device", "cpu", "-o", f"{folder}/out.csv"]
            seconds, alone, every = peak_memory([*screen, "--workers", str(arguments.workers)])
            lines = Path(f"{folder}/out.csv").read_text().count("\n") - 1
            assert lines == count, lines
            print(f"| {count:,} | {count / seconds:,.0f} | {alone:.0f} | {every:.0f} |", flush=True)
            count *= 10


if __name__ == "__main__":
    main()
