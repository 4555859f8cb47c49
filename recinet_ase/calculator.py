"""The ASE calculator: a thin adapter over `Predictor`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ase.calculators.calculator import (
    Calculator,
    CalculatorSetupError,
    PropertyNotImplementedError,
    all_changes,
)
from ase.outputs import Properties, all_outputs

from recinet_ase.errors import StructureError, UnknownNameError
from recinet_ase.predictor import Predictor
from recinet_ase.properties import answer_for, get_property_info

if TYPE_CHECKING:
    import torch
    from ase import Atoms

    from recinet_ase.model import PropertyModel

_ENDS = ("_lower", "_upper")


class ReciNetCalculator(Calculator):
    """Properties of crystals as an ASE calculator.

    >>> atoms.calc = ReciNetCalculator("jarvis-mbj")
    >>> atoms.calc.get_property("bandgap", atoms)

    Several models answer from one graph: ``ReciNetCalculator(["jarvis-mbj", "jarvis-ehull"])``.
    Results are kept until positions, cell, elements or periodicity change.

    Where a model is calibrated, each property ``p`` comes with ``p_lower`` and ``p_upper``, the
    ends of its 90 % interval, and `warnings` says how the atoms differ from the training data.

    Args:
        model: Name of a shipped model, a model folder, a loaded model, or a list of these.
        device: Torch device; a GPU where there is one by default.
        dtype: ``"float32"`` (default) or ``"float64"``.
        atoms: Attach the calculator to these atoms.

    Attributes:
        units: Unit of each property in ``implemented_properties``.
        models: Name of the model behind each property.
        warnings: How the atoms of the present results differ from those that a model was
            trained on; empty where all is usual, or no model is calibrated.

    Raises:
        UnknownNameError: For an unknown model.
        ReciNetError: If a model is damaged, or two give the same property.
    """

    name = "recinet"
    implemented_properties: ClassVar[list[str]] = []

    def __init__(
        self,
        model: str | Path | PropertyModel | Sequence[str | Path | PropertyModel] = "jarvis-mbj",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        atoms: Atoms | None = None,
    ) -> None:
        super().__init__(atoms=atoms)
        self.predictor = Predictor(model, device=device, dtype=dtype)
        infos = self.predictor.infos
        self.implemented_properties = [info.name for info in infos]  # type: ignore[misc]
        self.units = {info.name: info.unit for info in infos}
        self.models = {name: m.config.name for name, m in self.predictor.properties.items()}
        if "total_energy" in self.units:
            # ASE's energy is that of the whole cell.
            self.implemented_properties.append("energy")
            self.units["energy"] = "eV"
            self.models["energy"] = self.models["total_energy"]
        for name in list(self.implemented_properties):
            model = self.predictor.properties["total_energy" if name == "energy" else name]
            if model.calibration is not None:
                for end in _ENDS:
                    self.implemented_properties.append(name + end)
                    self.units[name + end] = self.units[name]
                    self.models[name + end] = self.models[name]
        self.warnings: tuple[str, ...] = ()

    def reset(self) -> None:
        """Forget all results."""
        super().reset()
        self.warnings = ()

    def get_property(
        self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True
    ) -> Any:
        """A property by its name or an alias (``"gap"``, ``"e_above_hull"``), in `units`.

        ``"bandgap_lower"`` and ``"bandgap_upper"`` (``"gap_lower"``...) are the ends of the
        90 % interval, where the model is calibrated.

        Raises:
            PropertyNotImplementedError: If no model here gives it; says which are given.
            StructureError: If the structure is not one the model can answer for.
        """
        end = next((e for e in _ENDS if name.endswith(e)), "")
        try:
            known = get_property_info(name.removesuffix(end)).name
            known = (answer_for(known, self.predictor.properties) or known) + end
        except UnknownNameError:
            known = name  # one of ASE's own, such as "energy"
        if known not in self.implemented_properties:
            given = ", ".join(self.implemented_properties)
            models = ", ".join(dict.fromkeys(self.models.values()))
            raise PropertyNotImplementedError(f"{models} gives no {name!r}; it gives: {given}")
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
            raise CalculatorSetupError("no atoms: attach the calculator or pass atoms")
        (result,) = self.predictor.predict_many([self.atoms])
        values = dict(result.values)
        for name, interval in result.intervals.items():
            values.update(zip((name + end for end in _ENDS), interval, strict=True))
        for end in ("", *_ENDS):
            if "total_energy" + end in values:
                values["energy" + end] = values["total_energy" + end] * len(self.atoms)
        self.results = values
        self.warnings = result.warnings
        if not set(wanted) <= set(values):
            raise StructureError(result.error)

    def export_properties(self) -> Properties:
        """Results under ASE's own property names (those of ours are not ASE's to export)."""
        return Properties({k: v for k, v in self.results.items() if k in all_outputs})
