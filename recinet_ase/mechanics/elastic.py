"""Elastic constants from stresses of strained cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.mechanics.cells import crystal_at_rest, evaluate_cells
from recinet_ase.simulation.calculators import load_calculator
from recinet_ase.simulation.states import name_of, require

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.analysis.elasticity import ElasticTensor

STRAINS = (-0.01, -0.005, 0.005, 0.01)
"""Default strains: in equal pairs, so that terms of second order cancel."""

RESIDUAL_STRESS = 0.5
"""Stress in GPa at zero strain that still counts as none."""

_NOTHING = 1e-9  # GPa, below which no constant is more than rounding
_LARGEST = 0.1  # strain beyond which nothing is linear
_CURVED = 0.15  # departure from a straight line, as a share of the largest stress
_LOPSIDED = 0.03  # C_ij - C_ji, as a share of the largest constant
_SYMMETRY = 0.03  # departure from the crystal's symmetry, likewise


@dataclass(frozen=True)
class ElasticResult:
    """Elastic constants of a crystal, all in GPa.

    Attributes:
        tensor: Stiffness in Voigt's notation ``[6, 6]`` (xx, yy, zz, yz, xz, xy; engineering
            shear strains), in the Cartesian axes of the structure as it was given.
        atoms: The crystal at rest that it belongs to, in the same axes.
        pressure: Pressure on that crystal.
        relaxed_ions: Whether atoms were let relax in the strained cells.
        warnings: What speaks against the numbers, one sentence each.
    """

    tensor: np.ndarray
    atoms: Atoms
    pressure: float
    relaxed_ions: bool
    warnings: tuple[str, ...] = ()

    @cached_property
    def pymatgen(self) -> ElasticTensor:
        """The tensor as pymatgen's ``ElasticTensor`` (Debye temperature, directions, ...)."""
        from pymatgen.analysis.elasticity import ElasticTensor

        return ElasticTensor.from_voigt(self.tensor)

    @cached_property
    def _invertible(self) -> ElasticTensor:
        """The tensor, if it has an inverse: Reuss' bounds are made of the compliance."""
        _ = self.compliance
        return self.pymatgen

    @cached_property
    def ieee(self) -> np.ndarray:
        """The tensor in the standard orientation of IEEE 176-1987 ``[6, 6]``, symmetrised.

        It depends neither on the cell nor on the orientation in which the crystal was given.
        """
        from pymatgen.io.ase import AseAtomsAdaptor

        structure = AseAtomsAdaptor.get_structure(self.atoms)
        return np.array(self.pymatgen.convert_to_ieee(structure).voigt)

    @property
    def bulk_voigt(self) -> float:
        """Bulk modulus, upper bound (Voigt)."""
        return float(self.pymatgen.k_voigt)

    @property
    def bulk_reuss(self) -> float:
        """Bulk modulus, lower bound (Reuss)."""
        return float(self._invertible.k_reuss)

    @property
    def bulk_modulus(self) -> float:
        """Bulk modulus, mean of both bounds (Voigt-Reuss-Hill)."""
        return (self.bulk_voigt + self.bulk_reuss) / 2

    @property
    def shear_voigt(self) -> float:
        """Shear modulus, upper bound (Voigt)."""
        return float(self.pymatgen.g_voigt)

    @property
    def shear_reuss(self) -> float:
        """Shear modulus, lower bound (Reuss)."""
        return float(self._invertible.g_reuss)

    @property
    def shear_modulus(self) -> float:
        """Shear modulus, mean of both bounds (Voigt-Reuss-Hill)."""
        return (self.shear_voigt + self.shear_reuss) / 2

    @property
    def youngs_modulus(self) -> float:
        """Young's modulus of the isotropic polycrystal, from the Hill averages."""
        k, g = self.bulk_modulus, self.shear_modulus
        return 9 * k * g / (3 * k + g)

    @property
    def poisson_ratio(self) -> float:
        """Poisson's ratio of the isotropic polycrystal, from the Hill averages."""
        k, g = self.bulk_modulus, self.shear_modulus
        return (3 * k - 2 * g) / (6 * k + 2 * g)

    @property
    def anisotropy(self) -> float:
        """Universal anisotropy (Ranganathan and Ostoja-Starzewski 2008), 0 if isotropic."""
        return float(self._invertible.universal_anisotropy)

    @property
    def compliance(self) -> np.ndarray:
        """Inverse of the stiffness ``[6, 6]``, 1/GPa.

        Raises:
            ReciNetError: If the stiffness is singular; no modulus with a Reuss bound exists then.
        """
        try:
            return np.linalg.inv(self.tensor)
        except np.linalg.LinAlgError:
            raise ReciNetError(
                f"the stiffness of {self.atoms.get_chemical_formula()} is singular: a strain costs "
                "nothing, so there is no compliance, nor a modulus that needs it (bulk_voigt and "
                "shear_voigt do not). Look at eigenvalues, and check the calculator"
            ) from None

    @property
    def eigenvalues(self) -> np.ndarray:
        """Stiffness against the six normal strains, ascending ``[6]`` (Kelvin's notation)."""
        kelvin = np.array([1, 1, 1, 2**0.5, 2**0.5, 2**0.5])
        return np.linalg.eigvalsh(self.tensor * np.outer(kelvin, kelvin))

    @property
    def stable(self) -> bool:
        """Born's criterion: every small strain costs energy (Mouhat and Coudert 2014)."""
        return bool(self.eigenvalues[0] > 0)


def elastic_constants(
    structure: Any,
    calculator: Any = None,
    *,
    relax: bool = True,
    relax_ions: bool = True,
    strains: Sequence[float] = STRAINS,
    fmax: float = 1e-3,
    max_steps: int = 500,
    progress: Callable[[int], None] = lambda done: None,
) -> ElasticResult:
    """Elastic constants of a crystal, by the slope of the stress against six strains.

    Six symmetric strains (no rotation) are applied in each of the sizes ``strains``; the stresses
    are fitted by pymatgen. With a calculator like `ReciNetForceCalculator` the cells go through
    the network in batches.

    Args:
        structure: ASE ``Atoms``, pymatgen ``Structure``, or a dictionary of pymatgen or JARVIS.
        calculator: An ASE calculator with forces and stress; by default the
            shipped force model for every element.
        relax: Relax cell and positions first; the constants belong to a crystal at rest.
        relax_ions: Let the atoms relax in each strained cell; without it the constants are
            those of clamped ions.
        strains: Components of the strain tensor, of both signs.
        fmax: Largest force left on an atom, eV/A.
        max_steps: Steps after which a relaxation is given up.
        progress: Called with the number of strained cells that are done.

    Raises:
        StructureError: If the structure is no ordered crystal, or does not come to rest.
        ReciNetError: If the calculator lacks forces or stress, or fails; for useless strains.
    """
    from ase.units import GPa
    from pymatgen.analysis.elasticity import ElasticTensor, Strain, Stress

    try:
        sizes = sorted(float(size) for size in strains)
    except (TypeError, ValueError):
        raise ReciNetError(
            f"strains must be numbers of both signs such as {STRAINS}, not {strains!r}"
        ) from None
    finite = bool(np.isfinite(sizes).all()) and len(set(sizes)) > 1
    if not finite or not sizes[0] < 0 < sizes[-1] or max(-sizes[0], sizes[-1]) > _LARGEST:
        raise ReciNetError(
            f"strains must be of both signs, between -{_LARGEST} and {_LARGEST}, not {strains}"
        )
    if calculator is None:
        calculator = load_calculator()
    require(calculator, "stress", "elastic constants need")
    rest = crystal_at_rest(structure, calculator, relax, fmax, max_steps)
    applied = [strain for size in sizes if size for strain in _six_strains(size)]
    cells = [rest, *(_strained(rest, strain) for strain in applied)]
    states = evaluate_cells(
        cells,
        calculator,
        stress=True,
        relax_ions=relax_ions,
        fmax=fmax,
        max_steps=max_steps,
        progress=progress,
    )
    stresses = np.array([state.stress for state in states]) / GPa
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pymatgen warns of is in `_doubts`
        fitted = ElasticTensor.from_independent_strains(
            [Strain(strain) for strain in applied],
            [Stress(stress) for stress in stresses[1:]],
            vasp=False,
        )
    raw = np.array(fitted.voigt)
    formula = rest.get_chemical_formula()
    if not np.isfinite(raw).all():
        raise StructureError(f"no elastic constants of {formula} can be fitted")
    if np.abs(raw).max() < _NOTHING:
        raise StructureError(
            f"{name_of(calculator)} gives no stress in any strained cell of {formula}: its "
            "interactions do not reach from atom to atom. Check its parameters (cutoff, units) "
            "and the size of the cell"
        )
    found = ElasticResult(
        tensor=(raw + raw.T) / 2,
        atoms=rest,
        pressure=float(-np.trace(stresses[0]) / 3),
        relaxed_ions=relax_ions,
    )
    doubts = _doubts(found, raw, np.array(applied), stresses, name_of(calculator))
    return ElasticResult(found.tensor, rest, found.pressure, relax_ions, tuple(doubts))


def _six_strains(size: float) -> list[np.ndarray]:
    strains = []
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)):
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = size
        strains.append(strain)
    return strains


def _strained(rest: Atoms, strain: np.ndarray) -> Atoms:
    cell = rest.copy()
    cell.set_cell(rest.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return cell


def _doubts(
    found: ElasticResult,
    raw: np.ndarray,
    strains: np.ndarray,
    stresses: np.ndarray,
    calculator: str,
) -> list[str]:
    """What speaks against the numbers.

    Args:
        found: The result so far.
        raw: The fitted constants before ``C_ij`` and ``C_ji`` were averaged ``[6, 6]``.
        strains: Strains ``[n, 3, 3]``.
        stresses: Stresses of the cell at rest and the strained ones, GPa ``[n + 1, 3, 3]``.
        calculator: The calculator's name.
    """
    from pymatgen.analysis.elasticity import ElasticTensor
    from pymatgen.io.ase import AseAtomsAdaptor

    doubts = []
    largest = float(np.abs(raw).max())
    at_rest = float(np.abs(stresses[0]).max())
    if at_rest > RESIDUAL_STRESS:
        doubts.append(
            f"the crystal is under stress ({at_rest:.2g} GPa): these are coefficients of stress "
            "against strain in that state, not constants of the crystal at rest"
        )
    change = np.einsum("ijkl,nkl->nij", ElasticTensor.from_voigt(raw.T), strains)
    departure = np.abs(stresses[1:] - stresses[0] - change).max()
    if departure > _CURVED * np.abs(stresses[1:] - stresses[0]).max():
        doubts.append(
            f"stress is not linear in strain (departures up to {departure:.2g} GPa): use smaller "
            "strains, or distrust the calculator here"
        )
    if (lopsided := float(np.abs(raw - raw.T).max())) > _LOPSIDED * largest:
        doubts.append(
            f"C_ij and C_ji differ by up to {lopsided:.2g} GPa: the stresses of {calculator} are "
            "not the derivatives of its energy, or the atoms are not at rest"
        )
    structure = AseAtomsAdaptor.get_structure(found.atoms)
    fitted = np.array(found.pymatgen.fit_to_structure(structure).voigt)
    if (odd := float(np.abs(found.tensor - fitted).max())) > _SYMMETRY * largest:
        doubts.append(f"the constants break the crystal's symmetry by up to {odd:.2g} GPa")
    if not found.stable:
        doubts.append(
            "elastically unstable (Born): a strain lowers the energy "
            f"(lowest eigenvalue {found.eigenvalues[0]:.3g} GPa)"
        )
    return doubts
