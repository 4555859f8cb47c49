"""Elastic constants and bulk moduli of mlearn-pes beside measured ones.

python benchmarks/forces/elasticity.py [--model MODEL]

Relaxed crystals, relaxed ions; stresses of 24 strained cells (`recinet_ase.mechanics`), and
Birch and Murnaghan's curve through 11 volumes within 6 %. Measured constants: Simmons and Wang
(1971), room temperature (lithium 78 K).
"""

from __future__ import annotations

import argparse

from ase.build import bulk

from recinet_ase import ReciNetForceCalculator
from recinet_ase.mechanics import elastic_constants, equation_of_state

MEASURED = {
    "Cu": (168, 121, 75),
    "Ge": (129, 48, 67),
    "Li": (15, 12, 11),
    "Mo": (464, 158, 109),
    "Ni": (247, 147, 125),
    "Si": (166, 64, 80),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mlearn-pes")
    calculator = ReciNetForceCalculator(parser.parse_args().model, device="cpu")
    print("| GPa | C11 | C12 | C44 | bulk modulus | from energies | shear modulus | doubts |")
    print("|---|---|---|---|---|---|---|---|")
    for symbol, known in MEASURED.items():
        found = elastic_constants(bulk(symbol), calculator)
        curve = equation_of_state(bulk(symbol), calculator)
        values = (found.ieee[0, 0], found.ieee[0, 1], found.ieee[3, 3])
        cells = [f"{a:.0f} ({b})" for a, b in zip(values, known, strict=True)]
        measured = (known[0] + 2 * known[1]) / 3
        cells.append(f"{found.bulk_modulus:.0f} ({measured:.0f})")
        cells += [f"{curve.bulk_modulus:.0f}", f"{found.shear_modulus:.0f}"]
        doubts = "; ".join((*found.warnings, *curve.warnings))
        print(f"| {symbol} | {' | '.join(cells)} | {doubts} |")


if __name__ == "__main__":
    main()
