"""How a screen takes being killed: rows lost, doubled or changed after many kills.

    python benchmarks/screening/faults.py [--kills 50] [--rows 20000]

Screens a database of real crystals once in peace, and once killed (``kill -9`` of the
whole program) after random times, each time continued with ``--resume``, with and without
worker processes; now and then only a worker is killed instead. Compares the results.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from ase.db import connect

EXAMPLES = Path(__file__).parents[2] / "examples" / "crystals.json"


def command(database: Path, out: Path, workers: int) -> list[str]:
    screen = [sys.executable, "-m", "recinet_ase.cli.screen", str(database), "-o", str(out)]
    return [*screen, "--props", "bandgap", "--device", "cpu", "-q", "--resume",
            "--workers", str(workers)]  # fmt: skip


def journal_size(out: Path) -> int:
    path = out.with_name(f"{out.name}.part") / "rows.jsonl"
    return path.stat().st_size if path.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    crystals = [row.toatoms() for row in connect(EXAMPLES).select()]
    with tempfile.TemporaryDirectory() as folder:
        database, peace, war = (Path(folder) / n for n in ("rows.db", "peace.csv", "war.csv"))
        with connect(database) as db:
            for i in range(arguments.rows):
                db.write(crystals[i % len(crystals)])
        subprocess.run(command(database, peace, 2), check=True, capture_output=True)
        kills = workers_killed = finished = 0
        before = 0
        while kills < arguments.kills:
            process = subprocess.Popen(
                command(database, war, rng.choice((0, 2))), stderr=subprocess.DEVNULL
            )
            # Mostly in the middle of the work, sometimes while the program starts.
            patience = time.monotonic() + 60
            if rng.random() < 0.85:
                while journal_size(war) <= before and time.monotonic() < patience:
                    if process.poll() is not None:
                        break
                    time.sleep(0.002)
            time.sleep(rng.random() ** 3 * 2)
            if process.poll() is not None:
                finished += 1
                war.unlink(missing_ok=True)  # and once more from the start
                before = 0
                continue
            children = psutil.Process(process.pid).children(recursive=True)
            idle = [c for c in children if not c.children()]
            if idle and rng.random() < 0.2:
                rng.choice(idle).kill()
                workers_killed += 1
                time.sleep(0.3)
            process.kill()
            process.wait()
            kills += 1
            before = journal_size(war)
        subprocess.run(command(database, war, 2), check=True, capture_output=True)
        ours, theirs = war.read_text().splitlines(), peace.read_text().splitlines()
        ids = [line.split(",", 1)[0] for line in ours]
        expected = [line.split(",", 1)[0] for line in theirs]
        changed = sum(a != b for a, b in zip(ours, theirs, strict=False))
        print(
            f"{kills} kills of the program and {workers_killed} of single workers over "
            f"{finished + 1} screens of {arguments.rows} rows: "
            f"{len(set(expected) - set(ids))} rows lost, {len(ids) - len(set(ids))} doubled, "
            f"{changed} different in any digit, order "
            f"{'kept' if ids == expected else 'CHANGED'}"
        )


if __name__ == "__main__":
    main()
