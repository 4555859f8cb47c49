"""Phonons of silicon, or: python phonons.py CALCULATOR ELEMENT, e.g. emt Cu.

Needs recinet-ase[phonopy].
"""

import sys

from ase.build import bulk

from recinet_ase import ReciNetError
from recinet_ase.phonons import load_calculator, phonons

name, element = sys.argv[1:3] or ("mlearn-pes", "Si")
try:
    found = phonons(bulk(element), load_calculator(name), message=print)
except ReciNetError as error:
    sys.exit(f"error: {error}")

print("frequencies in THz")
for point in found.points:
    print(f"{point:6}", *(f"{frequency:6.2f}" for frequency in found.at(point)))
room = abs(found.thermal.temperatures - 300).argmin()
print(f"heat capacity at 300 K: {found.thermal.heat_capacity[room]:.1f} J/K per mole of cells")
print(*found.warnings, sep="\n")
print("plots, tables and phonopy.yaml in", found.write(f"phonons-{element}"))
