"""The force model as an ASE calculator."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, overload

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from ase.symbols import Symbols

from recinet_ase.elements import symbols
from recinet_ase.errors import StructureError
from recinet_ase.forces.batch import ForceBatch, ForceGraph
from recinet_ase.forces.domain import DomainWarning
from recinet_ase.forces.model import ForceModel
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.inference.devices import choose_device, choose_dtype
from recinet_ase.nn.precision import full_precision

if TYPE_CHECKING:
    from ase import Atoms

_EDGES = 20_000  # of a batch on a CPU: about 600 atoms
_EDGES_ELSEWHERE = 400_000


class ReciNetForceCalculator(Calculator):
    """Energies, forces and stresses, for relaxation, dynamics, elasticity and phonons.

    >>> atoms.calc = ReciNetForceCalculator("mlearn-pes")  # without a name: for every element
    >>> atoms.get_forces()

    Units and signs are ASE's: eV, eV/angstrom, stress in eV/angstrom^3 (Voigt order xx, yy, zz,
    yz, xz, xy), positive under tension. The zero of the energy is that of the training data
    (mlearn: VASP's PBE energies), so that only differences mean something.

    The energy is smooth: atoms enter and leave the cutoff with two vanishing derivatives.
    Elements that the model never saw, and mixtures of elements it only saw pure, are refused.
    Pairs of elements, distances, volumes and surroundings unlike those of its training cells give a
    `DomainWarning`, once for each kind.

    Args:
        model: Name of a shipped force model, a model folder, or a loaded `ForceModel`; by default
            the shipped one for every element (`recinet_ase.pretrained.default_force_model`).
        device: Torch device; a GPU where there is one by default.
        dtype: ``"float32"`` (default) or ``"float64"``.
        atoms: Attach the calculator to these atoms.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy", "free_energy", "energies", "forces", "stress",
    ]  # fmt: skip

    def __init__(
        self,
        model: str | Path | ForceModel | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        atoms: Atoms | None = None,
        **kwargs: Any,
    ) -> None:
        from recinet_ase.pretrained import default_force_model, load_force_model

        if model is None:
            model = default_force_model()
        super().__init__(atoms=atoms, **kwargs)
        self.device, self.dtype = choose_device(device), choose_dtype(dtype)
        with torch.inference_mode(False):
            # A copy: another calculator may use the same model in another precision.
            found = deepcopy(model) if isinstance(model, ForceModel) else load_force_model(model)
            self.model = found.to(device=self.device, dtype=self.dtype).eval()
            self.model.requires_grad_(False)
        self._told: set[str] = set()  # kinds of warnings given, once each

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results``; called by ASE.

        Raises:
            StructureError: For what is no crystal that the model can answer for.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        (self.results,) = self.many([self.atoms])

    @overload
    def many(
        self, structures: Sequence[Any], strict: Literal[True] = True
    ) -> Iterator[dict[str, Any]]: ...

    @overload
    def many(
        self, structures: Sequence[Any], strict: Literal[False]
    ) -> Iterator[dict[str, Any] | StructureError]: ...

    def many(
        self, structures: Sequence[Any], strict: bool = True
    ) -> Iterator[dict[str, Any] | StructureError]:
        """``results`` of many structures, in batches, in order.

        Args:
            structures: ASE ``Atoms`` or pymatgen ``Structure``.
            strict: End with the first that the model cannot answer for, and warn of what lies
                outside the training cells; else errors are given in their places, and in
                ``"notes"`` of each result stands what would have been warned of.

        Raises:
            StructureError: See ``strict``.
        """
        limit = _EDGES if self.device.type == "cpu" else _EDGES_ELSEWHERE
        waiting: list[ForceGraph | StructureError] = []
        edges = 0
        for structure in structures:
            graph: ForceGraph | StructureError
            try:
                graph = self.model.graph(to_crystal(structure))
            except StructureError as error:
                graph = error
            size = 0 if isinstance(graph, StructureError) else graph.edge_index.shape[1]
            if waiting and edges + size > limit:
                yield from self._results(waiting, strict)
                waiting, edges = [], 0
            waiting.append(graph)
            edges += size
        yield from self._results(waiting, strict)

    def _results(
        self, graphs: Sequence[ForceGraph | StructureError], strict: bool
    ) -> Iterator[dict[str, Any] | StructureError]:
        """Results of a batch, with the errors that stand in it in their places."""
        sound = [graph for graph in graphs if isinstance(graph, ForceGraph)]
        results = iter(self._run(sound, strict) if sound else ())
        for graph in graphs:
            result = next(results) if isinstance(graph, ForceGraph) else graph
            if strict and isinstance(result, StructureError):
                raise result
            yield result

    def forces_of(self, structures: Sequence[Any]) -> list[np.ndarray]:
        """Forces in eV/angstrom of many structures, ``[N, 3]`` each."""
        return [result["forces"] for result in self.many(structures)]

    def _run(
        self, graphs: Sequence[ForceGraph], warn: bool
    ) -> list[dict[str, Any] | StructureError]:
        # Derivatives are needed inside the inference mode of whoever asks, too.
        with torch.inference_mode(False), full_precision():
            batch = ForceBatch.join(graphs, self.dtype, self.device)
            result = self.model(batch)
            novelty = self.model.novelty(result.latent, batch.z)
            # One copy of each kind, and so no more than two waits for the device.
            atoms = torch.column_stack((result.forces.double(), result.energies, novelty.double()))
            cells = torch.column_stack((result.energy, result.stress.double().flatten(1)))
        of_atoms = atoms.cpu().numpy()
        ends = np.cumsum([0, *batch.n_atoms])
        every: list[dict[str, Any] | StructureError] = []
        for i, (energy, *stress) in enumerate(cells.tolist()):
            own = of_atoms[ends[i] : ends[i + 1]]
            notes = self._notes(graphs[i], own[:, 4])
            found = {
                "energy": energy,
                "free_energy": energy,
                "energies": own[:, 3].copy(),
                "forces": own[:, :3].copy(),
                "stress": full_3x3_to_voigt_6_stress(np.reshape(stress, (3, 3))),
            }
            finite = all(np.isfinite(value).all() for value in found.values())
            error = StructureError("the force model gave a non-finite number")
            every.append(found if finite else error)
            if warn:
                self._tell(graphs[i], notes)
            else:
                found["notes"] = tuple(notes.values())
        return every

    def _notes(self, graph: ForceGraph, novelty: np.ndarray) -> dict[str, str]:
        """What lies outside the training cells: a sentence for each kind of reason."""
        domain = self.model.config.domain
        if domain is None:
            return {}
        notes = domain.notes(graph)
        at = int(novelty.argmax())
        if novelty[at] > 1:
            symbol = symbols()[int(graph.numbers[at])]
            notes[f"atoms of {symbol}"] = (
                f"atom {at} ({symbol}) is {float(novelty[at]):.1f} times as far from the usual "
                "features of its element as any in its data"
            )
        return notes

    def _tell(self, graph: ForceGraph, notes: dict[str, str]) -> None:
        """Warn once for each kind of reason."""
        for key in notes.keys() - self._told:
            self._told.add(key)
            warnings.warn(
                f"{self.model.config.name}, {Symbols(graph.numbers)}: {notes[key]}; do not trust "
                "the numbers unchecked",
                DomainWarning,
                stacklevel=2,
            )
