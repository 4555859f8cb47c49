"""The calculator in ten lines: properties of rocksalt, kept in a file."""

from ase.build import bulk
from ase.io import read, write

from recinet_ase import ReciNetCalculator, annotate

atoms = bulk("NaCl", "rocksalt", a=5.64)
atoms.calc = ReciNetCalculator("all")
for name, value in sorted(annotate(atoms).items()):
    print(f"{name:40} {value}")
print(f"energy of the cell: {atoms.get_potential_energy():.3f} eV", *atoms.calc.warnings)
write("salt.extxyz", atoms)
print("read back:", read("salt.extxyz").info["recinet_bandgap"], "eV")
