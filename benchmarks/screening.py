"""Wall time of recinet-screen, imports included, on JARVIS crystals in an ASE database.

python benchmarks/screening.py --data-dir DIR [--count 5000] [--threads 1 2]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from ase.db import connect

from recinet_ase import StructureError
from recinet_ase.data.published import JARVIS
from recinet_ase.graph.adapters import from_jarvis


def write_database(path: Path, data_dir: str | None, count: int) -> None:
    with connect(path) as database:
        for key, record in islice(JARVIS.records(data_dir).items(), count):
            try:
                database.write(from_jarvis(record).to_ase(), jid=key)
            except StructureError as error:
                print(f"{key} left out: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--props", default="bandgap,ehull")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jarvis.db"
        write_database(path, arguments.data_dir, arguments.count)
        command = [sys.executable, "-m", "recinet_ase.cli.screen", str(path), "--device", "cpu"]
        command += ["--props", arguments.props, "-o", str(Path(folder) / "out.csv")]
        for threads in arguments.threads:
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            start = time.perf_counter()
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
            seconds = time.perf_counter() - start
            print(
                f"{threads} threads: {seconds:.1f} s, {arguments.count / seconds:.0f} "
                f"structures/s ({done.stderr.splitlines()[-1].split(' -> ')[0]})"
            )


if __name__ == "__main__":
    main()
