"""Measure what JARVIS-DFT 2021's key ``ehull`` is (the figures in docs/concepts/limits.md).

python tools/check_ehull.py --data-dir DIR
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import numpy as np
from make_examples import reduced

from recinet_ase.data.published import JARVIS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    records = [
        r
        for r in JARVIS.records(parser.parse_args().data_dir).values()
        if "na" not in (r["ehull"], r["formation_energy_peratom"])
    ]
    polymorphs: dict[frozenset[tuple[str, int]], list[tuple[float, float]]] = defaultdict(list)
    for r in records:
        key = reduced(r["atoms"]["elements"])
        polymorphs[key].append((r["formation_energy_peratom"], r["ehull"]))
    compared = divided = 0
    lowest = []
    for composition, rows in polymorphs.items():
        atoms = sum(count for _, count in composition)
        if len(composition) > 1:
            lowest.append(min(ehull for _, ehull in rows))
        low, high = min(rows), max(rows)
        if atoms > 1 and high[0] - low[0] > 0.05:
            compared += 1
            ratio = (high[1] - low[1]) / (high[0] - low[0])
            divided += abs(ratio * atoms - 1) < 0.01
    print(f"{len(records)} records with both keys")
    print(
        f"polymorph pairs more than 50 meV/atom apart: {compared}; difference in ehull equals "
        f"difference in formation energy / atoms in the formula: {100 * divided / compared:.1f} %"
    )
    near = 100 * np.mean(np.array(lowest) < 0.05)
    print(
        f"lowest known polymorph of {len(lowest)} compounds: median ehull "
        f"{np.median(lowest):.2f} eV/atom; below 0.05: {near:.1f} %"
    )
    for formula in ("Si", "MgO", "NaCl", "GaAs", "TiO2", "SrTiO3", "Al2O3"):
        from ase.formula import Formula

        rows = polymorphs[frozenset(Formula(formula).count().items())]
        print(f"{formula}: {min(ehull for _, ehull in rows):.3f}")


if __name__ == "__main__":
    main()
