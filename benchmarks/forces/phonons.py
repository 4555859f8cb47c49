"""Phonon frequencies of a calculator against neutron scattering: a table for the docs.

python benchmarks/forces/phonons.py [--calculator mlearn-pes] [--elements Si Cu Ni] [--repeat 4]

Measured values are rounded to 0.1 THz:
Si  G. Dolling in Inelastic Scattering of Neutrons in Solids and Liquids (IAEA, Vienna 1963) II, 37;
    G. Nilsson and G. Nelin, Phys. Rev. B 6, 3777 (1972)
Cu  E. C. Svensson, B. N. Brockhouse, J. M. Rowe, Phys. Rev. 155, 619 (1967), 296 K
Ni  R. J. Birgeneau, J. Cordes, G. Dolling, A. D. B. Woods, Phys. Rev. 136, A1359 (1964), 296 K
"""

from __future__ import annotations

import argparse

import numpy as np
from ase.build import bulk

from recinet_ase.phonons import load_calculator, phonons

Mode = tuple[str, str, int, float]
"""High-symmetry point, name of the mode, its place in ascending order, measured THz."""

MEASURED: dict[str, list[Mode]] = {
    "Si": [
        ("GAMMA", "LTO", 5, 15.5),
        ("X", "TA", 0, 4.5),
        ("X", "LA/LO", 2, 12.3),
        ("X", "TO", 4, 13.9),
        ("L", "TA", 0, 3.4),
        ("L", "LA", 2, 11.3),
        ("L", "LO", 3, 12.6),
        ("L", "TO", 4, 14.7),
    ],
    "Cu": [("X", "T", 0, 5.1), ("X", "L", 2, 7.2), ("L", "T", 0, 3.4), ("L", "L", 2, 7.3)],
    "Ni": [("X", "T", 0, 6.3), ("X", "L", 2, 8.6), ("L", "T", 0, 4.2), ("L", "L", 2, 8.9)],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calculator", default="mlearn-pes")
    parser.add_argument("--elements", nargs="+", default=list(MEASURED), choices=list(MEASURED))
    parser.add_argument("--repeat", type=int, default=4, help="supercell; even numbers")
    arguments = parser.parse_args()
    calculator = load_calculator(arguments.calculator)
    print(f"| | mode | measured (THz) | {arguments.calculator} (THz) | difference |")
    print("|---|---|---|---|---|")
    for element in arguments.elements:
        # Gamma, X and L fit into an even supercell: nothing is interpolated there.
        found = phonons(bulk(element), calculator, supercell=[arguments.repeat] * 3, mesh=20)
        errors = []
        for point, mode, place, measured in MEASURED[element]:
            computed = float(found.at(point)[place])
            errors.append((computed - measured) / measured)
            print(
                f"| {element} | {point.replace('GAMMA', 'Γ')} {mode} | {measured:.1f} "
                f"| {computed:.2f} | {errors[-1]:+.1%} |"
            )
        lattice = found.structure.cell.lengths()[0]
        print(
            f"| {element} | mean absolute difference, a = {lattice:.3f} A | | "
            f"| {np.abs(errors).mean():.1%} |"
        )


if __name__ == "__main__":
    main()
