"""The one road from structures to predictions.

The calculator, the screen and the evaluation all call `Predictor`, so that a number
does not depend on the door it came through.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from recinet_ase.elements import symbols
from recinet_ase.errors import DeviceLostError, ReciNetError, StructureError, reason_of
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.inference.preparation import WINDOW, Preparation, PreparedBatch, PreparedWindow
from recinet_ase.inference.result import Prediction, Predictions
from recinet_ase.models.ensemble import AnyModel, EnsembleModel
from recinet_ase.models.property_model import PropertyModel
from recinet_ase.nn.reciprocal import FULL_GRAPHS, LatticeSums
from recinet_ase.properties import PropertyInfo, answer_for, get_property_info
from recinet_ase.uncertainty.calibration import Assessment
from recinet_ase.uncertainty.descriptors import describe_batch

_CPU_EDGES = 5_000  # about 100 crystals of 10 atoms: activations stay near the cache
_BYTES_PER_EDGE_AND_WIDTH = 60
_GPU_SHARE = 0.5


def choose_device(device: str | torch.device | None) -> torch.device:
    """``None`` or ``"auto"`` is a GPU where there is one.

    Raises:
        ReciNetError: If the device does not exist here.
    """
    if device is None or str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen: torch.device | None = None
    with suppress(RuntimeError):  # its message lists every kind that torch was ever built for
        chosen = torch.device(device)
    if chosen is None:
        raise ReciNetError(
            f"{str(device)!r} is no device; say 'cpu', 'cuda' (a GPU), 'cuda:1' or 'auto'"
        )
    try:
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


class Predictor:
    """Predicts properties of structures with one or several models.

    Models with the same neighbour rule share one graph, and models with the same
    reciprocal basis share one set of lattice sums. An ensemble (``"jarvis-eform:ensemble"``)
    answers with the mean of its members.

    Args:
        models: A model name, a model folder, a loaded model, or a list of these.
        device: Torch device; a GPU where there is one by default.
        dtype: ``"float32"`` (default) or ``"float64"``.
        batch_size: Crystals a batch at most, or ``"auto"``: as many as fit a budget of
            edges that follows from the device's memory.
        properties: Names or aliases of what to predict, or one; everything that the models
            give by default.
        intervals: Give intervals and warnings where a model has a calibration.
        reduce: Compute atoms that the network cannot tell apart once; the same answer
            for less work.

    Raises:
        UnknownNameError: For an unknown model.
        ReciNetError: If two models predict the same property, none predicts a wanted one,
            or a file is damaged.
    """

    def __init__(
        self,
        models: str | Path | AnyModel | Sequence[str | Path | AnyModel],
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int | str = "auto",
        properties: str | Iterable[str] | None = None,
        intervals: bool = True,
        reduce: bool = True,
    ) -> None:
        from recinet_ase.pretrained import load_model

        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype)
        chosen = [models] if isinstance(models, str | Path | AnyModel) else models
        if not isinstance(chosen, Iterable):
            raise ReciNetError(f"{models!r} names no model; give a name, a folder or a list")
        chosen = list(chosen)
        if not chosen:
            raise ReciNetError("no model given")
        self.models = [
            # A copy: moving the caller's own model would change it behind their back.
            copy.deepcopy(model).to(device=self.device, dtype=self.dtype).eval()
            if isinstance(model, PropertyModel | EnsembleModel)
            else load_model(model, self.device, self.dtype)
            for model in chosen
        ]
        wanted = None
        if properties is not None:
            given = [name for model in self.models for name in model.config.properties]
            names = [properties] if isinstance(properties, str) else list(properties)
            wanted = [_canonical(name, given) for name in names]
        self.properties: dict[str, AnyModel] = {}
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
        self.intervals = intervals
        self._networks = [m.config.network for model in self.models for m in model.members]
        cutoffs = [network.k_max for network in self._networks if network.reciprocal == "lattice"]
        auto = batch_size == "auto"
        self._most_crystals = WINDOW if auto else int(batch_size)
        self._most_edges = self._edge_budget() if auto else math.inf
        self.preparation = Preparation(
            settings=tuple(dict.fromkeys(model.config.graph for model in self.models)),
            k_max=max(cutoffs, default=None),
            dtype=self.dtype,
            # The equations as printed tell apart atoms that symmetry does not.
            reduce=reduce
            and all(network.reciprocal not in FULL_GRAPHS for network in self._networks),
        )

    def _edge_budget(self) -> float:
        if self.device.type != "cuda":
            return _CPU_EDGES
        free, _ = torch.cuda.mem_get_info(self.device)
        width = max(network.width for network in self._networks)
        return max(_CPU_EDGES, _GPU_SHARE * free / (_BYTES_PER_EDGE_AND_WIDTH * width))

    def __repr__(self) -> str:
        """``<Predictor: bandgap (eV, jarvis-mbj) on cpu>``."""
        told = [
            f"{info.name} ({info.unit or '1'}, {self.properties[info.name].config.name})"
            for info in self.infos
        ]
        return f"<Predictor: {', '.join(told)} on {self.device}>"

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

    def predict_many(self, structures: Iterable[Any]) -> Predictions:
        """Properties of many structures, in order; a bad one carries its error."""
        return self.collect(self.predict_iter(structures))

    def collect(self, results: Iterable[Prediction]) -> Predictions:
        """Results of this predictor as a list that knows the units."""
        units = {info.name: info.unit for info in self.infos}
        return Predictions((replace(result, units=units) for result in results), units)

    def predict_iter(self, structures: Iterable[Any]) -> Iterator[Prediction]:
        """Like `predict_many` for a stream of any length, with constant memory.

        An element of the stream may be an exception: it becomes that structure's error.
        """
        stream = iter(structures)
        while window := list(islice(stream, WINDOW)):
            yield from self.run(self.preparation(window))

    def run(self, window: PreparedWindow) -> list[Prediction]:
        """The predictions for a window that `preparation` made, in order."""
        results = list(window.results)
        for batch in self.batches(window):
            self._run_safely(batch, results)
        return results

    def batches(self, window: PreparedWindow) -> Iterator[PreparedBatch]:
        """What goes through the network together: as much as fits the memory of the device."""
        for batch in window.batches:
            yield from batch.divided(self._most_crystals, self._most_edges)

    def _run_safely(self, batch: PreparedBatch, results: list[Prediction]) -> None:
        """Run a batch; where it fails, run its halves, down to the one at fault.

        Raises:
            DeviceLostError: If it is the device that failed.
        """
        before = [results[i] for i in batch.places]
        try:
            self._run(batch, results)
            return
        except Exception as error:
            if self.device.type != "cpu" and _is_lost(error):
                raise DeviceLostError(f"{self.device} has failed ({reason_of(error)})") from None
            for i, result in zip(batch.places, before, strict=True):
                results[i] = result
            if len(batch) == 1:
                (i,) = batch.places
                results[i] = replace(results[i], error=reason_of(error))
                return
        # Out of the handler, which would keep the failed tensors alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        self._run_safely(batch.part(slice(None, half)), results)
        self._run_safely(batch.part(slice(half, None)), results)

    @torch.inference_mode()
    def _run(self, prepared: PreparedBatch, results: list[Prediction]) -> None:
        batches = {s: batch.to(self.device) for s, batch in prepared.graphs.items()}
        sums = {settings: LatticeSums(batch) for settings, batch in batches.items()}
        lacking: dict[int, dict[str, list[str]]] = {i: {} for i in prepared.places}
        for model in dict.fromkeys(self.properties.values()):
            config = model.config
            batch = batches[config.graph]
            found = model.outcome(batch, sums[config.graph])
            rows = torch.maximum(found.output, model.minimum).double().cpu().tolist()
            known: Sequence[Assessment | None] = [None] * len(rows)
            if self.intervals and model.calibration is not None:
                known = model.calibration.assess(describe_batch(batch, *found))
            spreads = found.spread.double().cpu().tolist() if self.intervals else [[]] * len(rows)
            elements = _elements(prepared.graphs[config.graph])
            trained = set(config.elements)
            columns = zip(prepared.places, elements, rows, spreads, known, strict=True)
            for i, z, row, spread, assessment in columns:
                if unseen := sorted(z - trained):
                    listed = ", ".join(symbols()[n] for n in unseen)
                    lacking[i].setdefault(listed, []).append(config.name)
                else:
                    results[i] = self._merge(results[i], model, z, row, spread, assessment)
        for i, models_of in lacking.items():
            for listed, names in models_of.items():
                results[i] = _refused(results[i], _untrained(names, listed))

    def _merge(
        self,
        result: Prediction,
        model: AnyModel,
        elements: Iterable[int],
        row: list[float],
        spread: list[float],
        assessment: Assessment | None,
    ) -> Prediction:
        """The result with one model's values added, or the reason why it has none."""
        names = model.config.properties
        if not all(map(math.isfinite, row)):
            return _refused(
                result, f"{model.config.name} gave a non-finite number; is the structure physical?"
            )
        found = {
            name: value
            for name, value in zip(names, row, strict=True)
            if name in self.properties and self.properties[name] is model
        }
        result = replace(result, values={**result.values, **found})
        if spread:
            given = dict(zip(names, spread, strict=True))
            mine = {name: given[name] for name in found}
            result = replace(result, spreads={**result.spreads, **mine})
        if assessment is not None:
            result = _assessed(result, model, found, assessment)
        borrowed = sorted({*elements} & {*model.config.training.get("elements_of_start", ())})
        if not borrowed:
            return result
        listed = ", ".join(symbols()[z] for z in borrowed)
        warning = f"{model.config.name}: only its start was trained on {listed}"
        return replace(result, warnings=(*result.warnings, warning), in_domain=False)


def _is_lost(error: Exception) -> bool:
    """Whether the device will fail from now on, whatever it is asked (a fault in a kernel)."""
    kind = getattr(torch, "AcceleratorError", None)  # since PyTorch 2.8
    lost = kind is not None and isinstance(error, kind)
    text = str(error)
    return (lost or "CUDA error" in text) and "out of memory" not in text


def _refused(result: Prediction, reason: str) -> Prediction:
    """The result with one more reason why values are missing."""
    return replace(result, error=f"{result.error}; {reason}" if result.error else reason)


def _untrained(names: Sequence[str], listed: str) -> str:
    """What is said of models that all lack the same elements."""
    if len(names) == 1:
        return f"{names[0]} was not trained on {listed}"
    return f"{', '.join(names[:-1])} and {names[-1]} were not trained on {listed}"


def _canonical(name: str, given: Sequence[str]) -> str:
    """A property's name from one of its aliases, where a model gives it."""
    if name in given:
        return name
    return answer_for(get_property_info(name).name, given) or name


def _elements(batch: CrystalBatch) -> list[set[int]]:
    """Atomic numbers that occur in each crystal of a batch."""
    found: list[set[int]] = [set() for _ in range(batch.n_crystals)]
    for crystal, z in zip(batch.crystal.tolist(), batch.z.tolist(), strict=True):
        found[crystal].add(z)
    return found


def _assessed(
    result: Prediction, model: AnyModel, found: Iterable[str], assessment: Assessment
) -> Prediction:
    """The result with one model's intervals and warnings added."""
    given = dict(zip(model.config.properties, assessment.intervals, strict=True))
    warnings = tuple(f"{model.config.name}: {text}" for text in assessment.warnings)
    return replace(
        result,
        intervals={**result.intervals, **{name: given[name] for name in found}},
        warnings=(*result.warnings, *warnings),
        in_domain=result.in_domain is not False and not warnings,
    )
