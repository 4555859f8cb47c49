"""The one road from structures to predictions.

The calculator, the screen and the evaluation all call `Predictor`, so that a number
does not depend on the door it came through.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError, StructureError
from recinet_ase.graph.adapters import to_crystal
from recinet_ase.graph.crystal import (
    Crystal,
    CrystalGraph,
    GraphSettings,
    build_graph,
    collate,
)
from recinet_ase.model import PropertyModel
from recinet_ase.nn.reciprocal import LatticeOperator
from recinet_ase.properties import PropertyInfo

MAXIMUM_VOLUME = 300.0
"""Cell volume per atom in angstrom^3 above which no prediction is given: 99.9 % of the
training crystals are denser, and a molecule or slab in vacuum is sparser."""

_WINDOW = 512  # structures looked at together, to put like sizes into one batch
_CPU_EDGES = 4_000  # about 25 crystals of 10 atoms: activations stay near the cache
_BYTES_PER_EDGE_AND_WIDTH = 60
_GPU_SHARE = 0.5


@dataclass(frozen=True)
class Prediction:
    """What came out for one structure.

    Attributes:
        values: Value of each property in its unit; missing where refused.
        error: Why values are missing, ``""`` if none is.
        formula: Chemical formula (Hill order), ``""`` if the structure was unreadable.
        n_atoms: Number of atoms, 0 if the structure was unreadable.
    """

    values: dict[str, float] = field(default_factory=dict)
    error: str = ""
    formula: str = ""
    n_atoms: int = 0


def choose_device(device: str | torch.device | None) -> torch.device:
    """``None`` or ``"auto"`` is a GPU where there is one.

    Raises:
        ReciNetError: If the device does not exist here.
    """
    if device is None or str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ReciNetError(f"device {str(device)!r} cannot be used here: {reason}") from None
    return chosen


def choose_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """``"float32"`` (default) or ``"float64"``.

    Raises:
        ReciNetError: For any other type.
    """
    name = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    if name not in ("float32", "float64"):
        raise ReciNetError(f"dtype must be 'float32' or 'float64', not {name!r}")
    return torch.float64 if name == "float64" else torch.float32


_Item = tuple[int, dict[GraphSettings, CrystalGraph]]
"""Position in the window, and the graph for each neighbour rule."""


class Predictor:
    """Predicts properties of structures with one or several models.

    Models with the same neighbour rule share one graph, and models with the same
    reciprocal basis share one set of lattice sums.

    Args:
        models: A model name, a model folder, a loaded model, or a list of these.
        device: Torch device; a GPU where there is one by default.
        dtype: ``"float32"`` (default) or ``"float64"``.
        batch_size: Crystals a batch at most, or ``"auto"``: as many as fit a budget of
            edges that follows from the device's memory.
        properties: Canonical names to predict; everything that the models give by default.

    Raises:
        UnknownNameError: For an unknown model.
        ReciNetError: If two models predict the same property, none predicts a wanted one,
            or a file is damaged.
    """

    def __init__(
        self,
        models: str | Path | PropertyModel | Sequence[str | Path | PropertyModel],
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int | str = "auto",
        properties: Iterable[str] | None = None,
    ) -> None:
        from recinet_ase.pretrained import load_model

        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype)
        chosen = [models] if isinstance(models, str | Path | PropertyModel) else list(models)
        if not chosen:
            raise ReciNetError("no model given")
        self.models = [
            # A copy: moving the caller's own model would change it behind their back.
            copy.deepcopy(model).to(device=self.device, dtype=self.dtype).eval()
            if isinstance(model, PropertyModel)
            else load_model(model, self.device, self.dtype)
            for model in chosen
        ]
        wanted = None if properties is None else list(properties)
        self.properties: dict[str, PropertyModel] = {}
        for model in self.models:
            for name in model.config.properties:
                if wanted is not None and name not in wanted:
                    continue
                if name in self.properties:
                    first = self.properties[name].config.name
                    raise ReciNetError(
                        f"both {first!r} and {model.config.name!r} predict {name!r}; choose one"
                    )
                self.properties[name] = model
        if wanted is not None:
            for name in wanted:
                if name not in self.properties:
                    raise ReciNetError(f"no given model predicts {name!r}")
            self.properties = {name: self.properties[name] for name in wanted}
        if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size > 0):
            raise ReciNetError(
                f"batch_size must be 'auto' or a positive number, not {batch_size!r}"
            )
        self._crystals = _WINDOW if batch_size == "auto" else int(batch_size)
        self._edges = self._edge_budget() if batch_size == "auto" else math.inf
        self._settings = list(dict.fromkeys(model.config.graph for model in self.models))

    def _edge_budget(self) -> float:
        if self.device.type != "cuda":
            return _CPU_EDGES
        free, _ = torch.cuda.mem_get_info(self.device)
        width = max(model.config.network.width for model in self.models)
        return max(_CPU_EDGES, _GPU_SHARE * free / (_BYTES_PER_EDGE_AND_WIDTH * width))

    @property
    def infos(self) -> list[PropertyInfo]:
        """What each number is that this predictor gives, in order."""
        return [
            next(info for info in model.config.infos if info.name == name)
            for name, model in self.properties.items()
        ]

    def predict(self, structure: Any) -> dict[str, float]:
        """Properties of one structure.

        Args:
            structure: ASE ``Atoms``, a pymatgen ``Structure`` or a JARVIS dictionary.

        Returns:
            Value of each property, in its unit.

        Raises:
            StructureError: If a model cannot answer for this structure.
        """
        (result,) = self.predict_iter([structure])
        if result.error:
            raise StructureError(result.error)
        return result.values

    def predict_many(self, structures: Iterable[Any]) -> list[Prediction]:
        """Properties of many structures, in order; a bad one carries its error."""
        return list(self.predict_iter(structures))

    def predict_iter(self, structures: Iterable[Any]) -> Iterator[Prediction]:
        """Like `predict_many` for a stream of any length, with constant memory.

        An element of the stream may be an exception: it becomes that structure's error.
        """
        stream = iter(structures)
        while window := list(islice(stream, _WINDOW)):
            yield from self._predict_window(window)

    def _predict_window(self, window: list[Any]) -> list[Prediction]:
        results: list[Prediction] = []
        ready: list[_Item] = []
        for i, structure in enumerate(window):
            formula, n_atoms = "", 0
            try:
                if isinstance(structure, Exception):
                    raise structure
                formula, n_atoms = describe(structure)
                crystal = to_crystal(structure)
                check_density(crystal)
                graphs = {s: build_graph(crystal, s, self.dtype) for s in self._settings}
            except Exception as error:  # one bad structure must never stop a screening
                results.append(Prediction({}, _reason(error), formula, n_atoms))
            else:
                results.append(Prediction({}, "", formula, n_atoms))
                ready.append((i, graphs))
        ready.sort(key=lambda item: item[1][self._settings[0]].num_edges)
        for batch in self._batches(ready):
            self._run_safely(batch, results)
        return results

    def _run_safely(self, items: list[_Item], results: list[Prediction]) -> None:
        """Run a batch; where it fails, run its halves, down to the one at fault."""
        before = [results[i] for i, _ in items]
        try:
            self._run(items, results)
        except Exception as error:
            for (i, _), result in zip(items, before, strict=True):
                results[i] = result
            if len(items) == 1:
                i = items[0][0]
                results[i] = replace(results[i], values={}, error=_reason(error))
                return
            half = len(items) // 2
            self._run_safely(items[:half], results)
            self._run_safely(items[half:], results)

    def _batches(self, ready: list[_Item]) -> Iterator[list[_Item]]:
        batch: list[_Item] = []
        edges = 0
        for item in ready:
            size = item[1][self._settings[0]].num_edges
            if batch and (edges + size > self._edges or len(batch) >= self._crystals):
                yield batch
                batch, edges = [], 0
            batch.append(item)
            edges += size
        if batch:
            yield batch

    @torch.inference_mode()
    def _run(self, items: list[_Item], results: list[Prediction]) -> None:
        batches = {
            s: collate([graphs[s] for _, graphs in items]).to(self.device) for s in self._settings
        }
        sums: dict[tuple[object, ...], LatticeOperator] = {}
        wanted = dict.fromkeys(self.properties.values())
        for model in wanted:
            config = model.config
            batch = batches[config.graph]
            lattice_sum = None
            if config.network.reciprocal == "lattice":
                network = config.network
                key = (config.graph, network.k_max, network.n_waves, network.wave_norm)
                if key not in sums:
                    sums[key] = LatticeOperator.build(batch, model.network.wave_basis)
                lattice_sum = sums[key]
            rows = model(batch, lattice_sum).double().cpu().tolist()
            for (i, graphs), row in zip(items, rows, strict=True):
                results[i] = self._merge(results[i], model, graphs[config.graph], row)

    def _merge(
        self, result: Prediction, model: PropertyModel, graph: CrystalGraph, row: list[float]
    ) -> Prediction:
        """The result with one model's values added, or the reason why it has none."""
        names = model.config.properties
        unseen = sorted(set(graph.z.tolist()) - set(model.config.elements))
        if unseen:
            listed = ", ".join(symbols()[z] for z in unseen)
            error = f"{model.config.name} was not trained on {listed}"
        elif not all(map(math.isfinite, row)):
            error = f"{model.config.name} gave a non-finite number; is the structure physical?"
        else:
            found = {
                name: value
                for name, value in zip(names, row, strict=True)
                if name in self.properties and self.properties[name] is model
            }
            return replace(result, values={**result.values, **found})
        return replace(result, error=f"{result.error}; {error}" if result.error else error)


def check_density(crystal: Crystal) -> None:
    """Refuse cells that are mostly vacuum.

    Raises:
        StructureError: If the volume per atom is above `MAXIMUM_VOLUME`.
    """
    volume = crystal.volume / len(crystal)
    if volume > MAXIMUM_VOLUME:
        raise StructureError(
            f"{volume:.0f} A^3 per atom is sparser than the crystals the models were trained on "
            f"(limit {MAXIMUM_VOLUME:.0f}); is it a molecule or a slab in vacuum?"
        )


def describe(structure: Any) -> tuple[str, int]:
    """Formula in Hill order and number of atoms of any accepted structure."""
    if isinstance(structure, dict):
        from ase.formula import Formula

        atoms = structure.get("atoms", structure)
        elements = atoms.get("elements") or [
            species["element"] for site in atoms.get("sites", []) for species in site["species"]
        ]
        return Formula.from_list(list(elements)).format("hill"), len(elements)
    if hasattr(structure, "get_chemical_formula"):
        return structure.get_chemical_formula(mode="hill"), len(structure)
    if hasattr(structure, "composition"):
        return structure.composition.hill_formula.replace(" ", ""), len(structure)
    if hasattr(structure, "numbers"):
        from ase.formula import Formula

        names = [symbols()[int(z)] for z in structure.numbers]
        return Formula.from_list(names).format("hill"), len(structure)
    return "", 0


def _reason(error: Exception) -> str:
    """One line that says what was wrong."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ReciNetError):
        return text
    return f"{type(error).__name__}: {text}"
