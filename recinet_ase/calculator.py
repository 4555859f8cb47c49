"""The ASE calculator: a thin adapter over `Predictor`."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from ase.calculators.calculator import (
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)
from ase.outputs import Properties, all_outputs

from recinet_ase.errors import StructureError, UnknownNameError
from recinet_ase.inference import predict as inference
from recinet_ase.inference.annotate import PREFIX, InfoValue, annotate
from recinet_ase.inference.result import ENDS, SPREAD, Prediction, Predictions
from recinet_ase.properties import answer_for, parse_properties

if TYPE_CHECKING:
    import torch
    from ase import Atoms

    from recinet_ase.stability.derived import References
    from recinet_ase.stability.phases import Component


class ReciNetCalculator(Calculator):
    """Properties of crystals as an ASE calculator.

    >>> atoms.calc = ReciNetCalculator("jarvis-mbj")
    >>> atoms.calc.get_property("bandgap", atoms)

    Several models answer from one graph: ``ReciNetCalculator(["jarvis-mbj", "jarvis-eform"])``.
    Results are kept until positions, cell, elements or periodicity change; charges, magnetic
    moments, momenta, constraints and ``info`` mean nothing to the models.

    A model of the total energy (``jarvis-etot``) also gives ASE's ``energy`` in eV: the number of
    atoms times the total energy per atom, with the zero of its training data (JARVIS-DFT: total
    energies of VASP with OptB88vdW, so that only differences mean something). Without such a
    model, and for forces and stress always, ASE's PropertyNotImplementedError is raised.

    A model of the formation energy also gives ``ehull``, the distance to the convex hull of known
    phases of its level of theory, and `decomposition`, the phases that compete with the crystal.

    Where a model is calibrated, each property ``p`` comes with ``p_low`` and ``p_high``, the
    ends of its 90 % interval, and ``in_domain`` and `warnings` say whether and how the atoms
    differ from the training data. An ensemble (``"jarvis-eform:ensemble"``) adds ``p_spread``, the
    standard deviation of its members.

    One calculator serves one thread; calculators that share a `Predictor` may run in several.

    Args:
        model: Name of a shipped model, a model folder, a loaded model, a list of these, ``"all"``
            for every shipped property, or a `Predictor` (shared, not copied).
        device: Torch device; a GPU where there is one by default.
        dtype: ``"float32"`` (default) or ``"float64"``.
        atoms: Attach the calculator to these atoms.
        hull: What ``ehull`` is measured from: a `recinet_ase.stability.Hull`, a file of formation
            energies, ``"jarvis"`` or ``"mp"``, or a list of these; by default the shipped
            references of the model's level of theory.

    Attributes:
        predictor: What the numbers come from.
        units: Unit of each property in ``implemented_properties``.
        models: Name of the model behind each property.

    Raises:
        UnknownNameError: For an unknown model.
        ReciNetError: If a model is damaged, two have the same name, or references cannot be used.
    """

    name = "recinet"
    implemented_properties: ClassVar[list[str]] = []
    ignored_changes: ClassVar[set[str]] = {"initial_charges", "initial_magmoms"}

    def __init__(
        self,
        model: inference.Models = "jarvis-mbj",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        atoms: Atoms | None = None,
        hull: References | None = None,
    ) -> None:
        self._owners: list[weakref.ref[Atoms]] = []
        self.predictor = inference.as_predictor(model, device, dtype, hull=hull)
        sources = {name: m.config.name for name, m in self.predictor.properties.items()}
        # Databases and trajectories store the parameters: where a number came from.
        super().__init__(atoms=atoms, models=sources)
        self.units = {info.name: info.unit for info in self.predictor.infos}
        self.models = dict(sources)
        if "total_energy" in self.units:
            # ASE's energy is that of the whole cell.
            self.units["energy"] = "eV"
            self.models["energy"] = self.models["total_energy"]
        calibrated = False
        for name in list(self.units):
            source = self.predictor.properties["total_energy" if name == "energy" else name]
            if len(source.members) > 1 and self.predictor.intervals:
                self.units[name + SPREAD] = self.units[name]
                self.models[name + SPREAD] = self.models[name]
            if source.calibration is not None and self.predictor.intervals:
                calibrated = True
                for end in ENDS:
                    self.units[name + end] = self.units[name]
                    self.models[name + end] = self.models[name]
        if calibrated:
            self.units["in_domain"] = ""
        self.implemented_properties = list(self.units)  # type: ignore[misc]
        self._prediction = Prediction()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the atoms that it is attached to, which hold it themselves."""
        return {**self.__dict__, "_owners": []}

    def set_atoms(self, atoms: Atoms) -> None:
        """Take note of atoms that the calculator is attached to (ASE calls this)."""
        self._owners = [ref for ref in self._owners if ref() is not None] + [weakref.ref(atoms)]

    def _owner(self) -> Atoms | None:
        """The atoms that it is attached to, None if there are none or several."""
        owners = {id(a): a for ref in self._owners if (a := ref()) is not None and a.calc is self}
        return next(iter(owners.values())) if len(owners) == 1 else None

    def __repr__(self) -> str:
        """``<ReciNetCalculator: bandgap (eV, jarvis-mbj) on cpu>``."""
        return repr(self.predictor).replace("Predictor", type(self).__name__, 1)

    @property
    def warnings(self) -> tuple[str, ...]:
        """How the atoms of the present results differ from those that a model was trained on.

        Empty where all is usual, or no model is calibrated.
        """
        return self._prediction.warnings if self.results else ()

    @property
    def decomposition(self) -> tuple[Component, ...]:
        """The known phases that compete with the atoms of the present results (``ehull``)."""
        return self._prediction.decomposition if self.results else ()

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """A property by its name or an alias (``"gap"``, ``"e_above_hull"``), in `units`.

        Without ``atoms`` it is that of the atoms that the calculator is attached to, where
        these are the only ones.

        ``"bandgap_low"`` and ``"bandgap_high"`` (``"gap_low"``...) are the ends of the 90 %
        interval, where the model is calibrated. What several models give is named by the model:
        ``"bulk_modulus[mp-bulk]"``.

        Raises:
            PropertyNotImplementedError: If no model here gives it; says which are given.
            StructureError: If the structure is not one the model can answer for.
        """
        end = next((e for e in (*ENDS, SPREAD) if name.endswith(e)), "")
        try:
            (info,) = parse_properties([name.removesuffix(end)], self.predictor.infos)
            known = (answer_for(info.name, self.predictor.properties) or info.name) + end
        except UnknownNameError:
            known = name  # one of ASE's own, such as "energy"
        if known not in self.implemented_properties:
            given = ", ".join(self.implemented_properties)
            models = ", ".join(dict.fromkeys(self.models.values()))
            raise PropertyNotImplementedError(f"{models} gives no {name!r}; it gives: {given}")
        atoms = self._owner() if atoms is None else atoms
        return super().get_property(known, atoms, allow_calculation)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Predict everything the models give (called by ASE when something changed).

        Raises:
            CalculatorSetupError: If there are no atoms.
            StructureError: If the model of a wanted property refuses the structure.
        """
        wanted = list(properties or self.implemented_properties)
        super().calculate(atoms, wanted, system_changes)
        if self.atoms is None:
            raise CalculatorSetupError(
                "no atoms, or several that share this calculator: pass the ones that are meant, "
                "as in calc.get_property(name, atoms)"
            )
        (result,) = self.predictor.predict_many([self.atoms])
        values: dict[str, float | bool] = dict(result.values)
        for name, interval in result.intervals.items():
            values.update(zip((name + end for end in ENDS), interval, strict=True))
        values.update({name + SPREAD: value for name, value in result.spreads.items()})
        for end in ("", *ENDS, SPREAD):
            if "total_energy" + end in values:
                values["energy" + end] = values["total_energy" + end] * len(self.atoms)
        if result.in_domain is not None:
            values["in_domain"] = result.in_domain
        self.results, self._prediction = values, result
        if not set(wanted) <= set(values):
            raise StructureError(
                result.error or f"there is no ehull: the references lack: {result.lacks}"
            )

    def get_prediction(self, atoms: Atoms | None = None) -> Prediction:
        """Everything known about one structure: values, intervals, warnings, error.

        Like `get_property`, without a second calculation where nothing changed; what a model
        refuses is in its ``error``.
        """
        with suppress(StructureError):
            self.get_property(next(iter(self.predictor.properties)), atoms)
        return self._prediction

    def predict(
        self,
        structures: Iterable[Any],
        *,
        order: str | None = None,
        progress: bool | None = None,
    ) -> Predictions:
        """Properties of many structures in batches; the present results stay as they are.

        Args:
            structures: ASE ``Atoms``, pymatgen ``Structure``, or dictionaries of pymatgen or
                JARVIS.
            order: ``"ewald"`` orders disordered structures (`recinet_ase.predict`).
            progress: Show a bar on stderr; by default where that is a terminal.

        Returns:
            One `Prediction` for each structure, in order; a bad one carries its ``error``.
        """
        return inference.predict(structures, self.predictor, order=order, progress=progress)

    def predict_structure(self, structure: Any, *, order: str | None = None) -> dict[str, float]:
        """Properties of one structure, pymatgen's for instance, in `units`.

        Raises:
            StructureError: If a model cannot answer for the structure.
        """
        return inference.predict_structure(structure, self.predictor, order=order)

    def annotate(
        self, atoms: Atoms, *, prefix: str = PREFIX, overwrite: bool = False
    ) -> dict[str, InfoValue]:
        """Put the predictions into ``atoms.info``, where files keep them (as `annotate`)."""
        return annotate(atoms, self, prefix=prefix, overwrite=overwrite)

    def export_properties(self) -> Properties:
        """Results under ASE's own property names (those of ours are not ASE's to export)."""
        return Properties({k: v for k, v in self.results.items() if k in all_outputs})
