"""Long dynamics with the shipped force model."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.md.verlet import VelocityVerlet

from recinet_ase import ReciNetForceCalculator


@pytest.mark.slow
@pytest.mark.parametrize("element", ["Si", "Cu"])
def test_ten_picoseconds_keep_their_energy(element: str) -> None:
    """NVE at 300 K: a trend of less than 1 meV/atom."""
    atoms = bulk(element, cubic=True)
    atoms.calc = ReciNetForceCalculator("mlearn-pes", device="cpu")
    # Half of it becomes potential energy.
    MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=np.random.RandomState(0))
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, timestep=2 * units.fs)
    energies: list[float] = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy() / len(atoms)), interval=10)
    dynamics.run(5000)
    trend = np.polyfit(np.linspace(0, 1, len(energies)), energies, 1)[0]
    assert abs(trend) < 1e-3
    assert np.ptp(energies) < 5e-3
