"""Structures read per second from the same CIFs: this package, ASE, pymatgen.

    python benchmarks/screening/reading.py FOLDER

Each file is read by all three in turn, so that whatever else the machine does slows all alike;
times are of this process's CPU. Files are in memory before. `tools/compare_cif_readers.py` writes
a folder of CIFs with their symmetry, and tells whether the readers agree on it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path


def read_here(text: str) -> int:
    """Atoms by this package."""
    from recinet_ase.io import parse_cif

    return len(parse_cif(text))


def read_ase(text: str) -> int:
    """Atoms by ASE."""
    from ase.io.cif import read_cif

    return sum(len(atoms) for atoms in read_cif(BytesIO(text.encode()), index=slice(None)))


def read_pymatgen(text: str) -> int:
    """Atoms by pymatgen."""
    from pymatgen.io.cif import CifParser

    return sum(len(s) for s in CifParser(StringIO(text)).parse_structures(primitive=False))


READERS: dict[str, Callable[[str], int]] = {
    "recinet_ase": read_here,
    "ase": read_ase,
    "pymatgen": read_pymatgen,
}


def main() -> None:
    """Print one line for each reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    texts = [path.read_text() for path in sorted(options.folder.rglob("*.cif"))[: options.count]]
    for read in READERS.values():  # imports, which depend on the size
        read(min(texts, key=len))
        read(max(texts, key=len))
    atoms, failed = (dict.fromkeys(READERS, 0) for _ in range(2))
    spent: dict[str, float] = dict.fromkeys(READERS, 0.0)
    for text in texts:
        for name, read in READERS.items():
            begin = time.process_time()
            try:
                atoms[name] += read(text)
            except Exception:
                failed[name] += 1
            spent[name] += time.process_time() - begin
    for name in READERS:
        rate = len(texts) / spent[name]
        print(
            f"{name:12} {rate:8.0f} structures/s  {1000 / rate:6.2f} ms each  "
            f"{atoms[name]} atoms, {failed[name]} files not read"
        )


if __name__ == "__main__":
    main()
