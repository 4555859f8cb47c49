"""The one road from structures to predictions.

The calculator, the screen and the evaluation all call `Predictor`, so that a number
does not depend on the door it came through.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from recinet_ase.elements import symbols
from recinet_ase.errors import DeviceLostError, ReciNetError, StructureError, reason_of
from recinet_ase.inference.preparation import (
    WINDOW,
    Preparation,
    PreparedBatch,
    PreparedWindow,
    failed,
)
from recinet_ase.inference.result import Prediction, Predictions
from recinet_ase.models.ensemble import AnyModel, EnsembleModel
from recinet_ase.models.property_model import ModelConfig, ModelOutput, PropertyModel
from recinet_ase.nn.precision import full_precision
from recinet_ase.nn.reciprocal import FULL_GRAPHS, LatticeSums
from recinet_ase.properties import PropertyInfo, answer_for, get_property_info, source_of
from recinet_ase.stability.derived import (
    DISTANCE,
    SOURCE,
    HullDistance,
    References,
    choose_hull,
)
from recinet_ase.uncertainty.calibration import Assessment
from recinet_ase.uncertainty.descriptors import Descriptors

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    import numpy as np

    from recinet_ase.inference.embed import Contributions

_CPU_EDGES = 5_000  # about 100 crystals of 10 atoms: activations stay near the cache
_BYTES_PER_EDGE_AND_WIDTH = 60
_GPU_SHARE = 0.5
_FEW_CRYSTALS = 5_000  # a smaller training set has few crystals of most elements


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


@dataclass(frozen=True)
class Computed:
    """What the networks made of some crystals of a window, on the CPU.

    Attributes:
        places: Their positions in the window.
        outcomes: For each model that was asked, in order.
        error, fault: Why there are none (see `Prediction`), ``""`` otherwise.
    """

    places: list[int]
    outcomes: tuple[ModelOutput, ...] = ()
    error: str = ""
    fault: str = ""

    def __getitem__(self, some: slice) -> Computed:
        """Some of the crystals."""
        outcomes = tuple(ModelOutput(*(part[some] for part in one)) for one in self.outcomes)
        return replace(self, places=self.places[some], outcomes=outcomes)


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
        hull: References for ``ehull``, the distance of predicted formation energies to the hull of
            known phases: shipped ones by name, a file, a `recinet_ase.stability.Hull`, or a list;
            by default those that are shipped for the model's level of theory.
        decomposition: Give the phases that compete with a crystal, where ``ehull`` is given.
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
        hull: References | None = None,
        decomposition: bool = True,
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
        self._outputs = self._sources(wanted)
        self.properties: dict[str, AnyModel] = dict(self._outputs)
        self.stability = self._stability(wanted, hull, decomposition)
        if self.stability is not None:
            self.properties[DISTANCE] = self._outputs[SOURCE]
        if wanted is not None:
            for name in wanted:
                if name not in self.properties:
                    source = f" (or {SOURCE!r}, which it follows from)" if name == DISTANCE else ""
                    raise ReciNetError(f"no given model predicts {name!r}{source}")
            self.properties = {name: self.properties[name] for name in wanted}
        if batch_size != "auto" and not (isinstance(batch_size, int) and batch_size > 0):
            raise ReciNetError(
                f"batch_size must be 'auto' or a positive number, not {batch_size!r}"
            )
        self.intervals = intervals
        self._asked = list(dict.fromkeys(self._outputs.values()))
        # In double precision: 33.7 in single precision is a little more.
        self._bounds = {
            m: torch.tensor(m.config.bounds, dtype=torch.float64).T[:2] for m in self._asked
        }
        self._networks = [m.config.network for model in self.models for m in model.members]
        cutoffs = [network.k_max for network in self._networks if network.reciprocal == "lattice"]
        auto = batch_size == "auto"
        most = math.inf if self.device.type == "cuda" else WINDOW
        self._most_crystals = most if auto else int(batch_size)
        self._most_edges = self._edge_budget() if auto else math.inf
        self.preparation = Preparation(
            settings=tuple(dict.fromkeys(model.config.graph for model in self.models)),
            k_max=max(cutoffs, default=None),
            dtype=self.dtype,
            # The equations as printed tell apart atoms that symmetry does not.
            reduce=reduce
            and all(network.reciprocal not in FULL_GRAPHS for network in self._networks),
            describe=intervals and any(model.calibration is not None for model in self._asked),
        )

    def _sources(self, wanted: Sequence[str] | None) -> dict[str, AnyModel]:
        """The model of each output that is wanted, or that something wanted follows from.

        Raises:
            ReciNetError: If there are two of one.
        """
        given = [name for model in self.models for name in model.config.properties]
        needed = None if wanted is None else {source_of(name, given) for name in wanted}
        found: dict[str, AnyModel] = {}
        for model in self.models:
            for name in model.config.properties:
                if needed is not None and name not in needed:
                    continue
                if name in found:
                    first = found[name].config.name
                    raise ReciNetError(
                        f"both {first!r} and {model.config.name!r} predict {name!r}; choose one"
                    )
                found[name] = model
        return found

    def _stability(
        self, wanted: Sequence[str] | None, hull: References | None, decomposition: bool
    ) -> HullDistance | None:
        """What turns formation energies into distances to the hull, where these are given."""
        asked = wanted is not None and DISTANCE in wanted
        if DISTANCE in self._outputs or SOURCE not in self._outputs:
            if hull is not None:
                raise ReciNetError(f"references are of use where {SOURCE} is predicted")
            return None
        if not asked and wanted is not None:
            return None
        config = self._outputs[SOURCE].config
        functional = config.functional_of(SOURCE)
        chosen = choose_hull(hull, functional, config.name, wanted=asked)
        if chosen is None:
            return None
        return HullDistance(chosen, config.name, decomposition, asked or hull is not None)

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
            next((i for i in model.config.infos if i.name == name), None) or get_property_info(name)
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
            for result in self.run(self.preparation(window)):
                if result.fault:
                    _LOG.error("%s: %s", result.formula or "a structure", result.fault)
                yield result

    def embed(self, structures: Iterable[Any], model: str | None = None) -> np.ndarray:
        """Representations of crystals, what the model's last layers make a property of.

        Args:
            structures: The crystals.
            model: Name of the model, where there are several.

        Returns:
            float32 ``[n, d]``; NaN in the rows of structures without an answer. More, and
            comparisons: `recinet_ase.inference.embed.embed`.
        """
        from recinet_ase.inference.embed import embed, numbered

        return embed(self, numbered(structures), model).vectors

    def contributions(self, structure: Any, prop: str | None = None) -> Contributions:
        """What each site adds to a value (`recinet_ase.inference.embed.contributions`)."""
        from recinet_ase.inference.embed import contributions

        return contributions(self, structure, prop)

    def run(
        self, window: PreparedWindow, beginning: Callable[[int], None] = lambda crystals: None
    ) -> list[Prediction]:
        """The predictions for a window that `preparation` made, in order.

        Args:
            window: The crystals.
            beginning: Told the number of crystals of each batch before its turn.
        """
        return self.results_of(window, self.compute(window, beginning))

    def finished(self, results: list[Prediction]) -> list[Prediction]:
        """The results with what follows from the models' values."""
        if self.stability is not None:
            results = self.stability(results)
            if SOURCE not in self.properties:
                results = [_without(result, SOURCE) for result in results]
        return results

    def batches(self, window: PreparedWindow) -> Iterator[PreparedBatch]:
        """What goes through the network together: as much as fits the memory of the device."""
        for batch in window.batches:
            yield from batch.divided(self._most_crystals, self._most_edges)

    def compute(
        self, window: PreparedWindow, beginning: Callable[[int], None] = lambda crystals: None
    ) -> Iterator[Computed]:
        """What the networks make of a window: all of a prediction that takes the device.

        Args:
            window: The crystals.
            beginning: Told the number of crystals of each batch before its turn.

        Raises:
            DeviceLostError: If the device has failed.
        """
        for batch in self.batches(window):
            beginning(len(batch))
            yield from self._compute_safely(batch)

    def compute_together(
        self,
        windows: Sequence[Sequence[PreparedBatch]],
        beginning: Callable[[int], None] = lambda crystals: None,
    ) -> list[list[Computed]]:
        """`compute` for the batches of several windows, on a GPU all at once.

        A GPU does thousands of small crystals in the time of a few hundred. A CPU gains nothing,
        and takes them window by window, so that rounding is that of each by itself.

        Raises:
            DeviceLostError: If the device has failed.
        """
        if self.device.type == "cpu":
            return [
                list(self.compute(PreparedWindow(batches=list(batches)), beginning))
                for batches in windows
            ]
        parts = [(k, batch) for k, batches in enumerate(windows) for batch in batches]
        if not parts:
            return [[] for _ in windows]
        room = 1 + max(max(batch.places) for _, batch in parts)
        whole = PreparedBatch.join([b for _, b in parts], [k * room for k, _ in parts])
        found: list[list[Computed]] = [[] for _ in windows]
        for part in self.compute(PreparedWindow(batches=[whole]), beginning):
            owner = torch.tensor(part.places) // room
            for k in owner.unique().tolist():
                rows = torch.nonzero(owner == k).flatten()
                outcomes = tuple(ModelOutput(*(x[rows] for x in one)) for one in part.outcomes)
                places = [part.places[i] - k * room for i in rows.tolist()]
                found[k].append(replace(part, places=places, outcomes=outcomes))
        return found

    def results_of(self, window: PreparedWindow, parts: Iterable[Computed]) -> list[Prediction]:
        """The predictions for a window, in order, from what the networks made of it."""
        results = list(window.results)
        for part in parts:
            self.read(window, part, results)
        return self.finished(results)

    def _compute_safely(self, batch: PreparedBatch) -> Iterator[Computed]:
        """Run a batch; where it fails, run its halves, down to the one at fault."""
        try:
            done = Computed(batch.places, self._outcomes(batch))
        except Exception as error:
            if self.device.type != "cpu" and _is_lost(error):
                raise DeviceLostError(f"{self.device} has failed ({reason_of(error)})") from None
            failure = failed(Prediction(), error)
            done = Computed(batch.places, error=failure.error, fault=failure.fault)
        if not done.error or len(batch) == 1:
            yield done
            return
        # Out of the handler, which would keep the failed tensors alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        yield from self._compute_safely(batch.part(slice(None, half)))
        yield from self._compute_safely(batch.part(slice(half, None)))

    @full_precision()
    @torch.inference_mode()
    def _outcomes(self, prepared: PreparedBatch) -> tuple[ModelOutput, ...]:
        """The outcome of each model that is asked, on the CPU."""
        batches = {s: batch.to(self.device) for s, batch in prepared.graphs.items()}
        sums = {settings: LatticeSums(batch) for settings, batch in batches.items()}
        found = []
        for model in self._asked:
            settings = model.config.graph
            outcome = model.outcome(batches[settings], sums[settings])
            if not self.intervals:
                outcome = outcome._replace(spread=outcome.spread[:, :0])
            if not self.intervals or model.calibration is None:
                outcome = outcome._replace(latent=outcome.latent[:, :0])
            found.append(outcome)
        if self.device.type == "cpu":
            return tuple(found)
        # One copy, and so one wait for the device.
        columns = [part for outcome in found for part in outcome]
        parts = torch.cat(columns, dim=1).cpu().split([part.shape[1] for part in columns], dim=1)
        return tuple(ModelOutput(*parts[i : i + 3]) for i in range(0, len(parts), 3))

    def read(self, window: PreparedWindow, part: Computed, results: list[Prediction]) -> None:
        """Let what the networks made of some crystals into the results of their window."""
        if part.error:
            for i in part.places:
                results[i] = replace(results[i], error=part.error, fault=part.fault)
            return
        try:
            found = self._read(window, part, [results[i] for i in part.places])
        except Exception as error:  # one odd crystal must not cost the others theirs
            if len(part.places) == 1:
                found = [failed(results[part.places[0]], error)]
            else:
                half = len(part.places) // 2
                self.read(window, part[:half], results)
                self.read(window, part[half:], results)
                return
        for i, result in zip(part.places, found, strict=True):
            results[i] = result

    @torch.inference_mode()
    def _read(
        self, window: PreparedWindow, part: Computed, results: list[Prediction]
    ) -> list[Prediction]:
        """The results of a part of the window, with what each model gives or refuses."""
        composition = window.composition[part.places]
        elements = _elements(composition)
        lacking: list[dict[str, list[str]]] = [{} for _ in results]
        for model, found in zip(self._asked, part.outcomes, strict=True):
            config = model.config
            rows = found.output.double().clamp(*self._bounds[model]).tolist()
            known: Sequence[Assessment | None] = [None] * len(rows)
            if self.intervals and model.calibration is not None:
                described = Descriptors(
                    latent=found.latent.double(),
                    output=found.output.double(),
                    geometry=window.geometry[config.graph][part.places],
                    composition=composition,
                    spread=found.spread.double(),
                )
                known = model.calibration.assess(described)
            spreads = found.spread.double().tolist()
            trained = set(config.elements)
            columns = zip(elements, rows, spreads, known, strict=True)
            for i, (z, row, spread, assessment) in enumerate(columns):
                if unseen := sorted(z - trained):
                    listed = ", ".join(symbols()[n] for n in unseen)
                    lacking[i].setdefault(listed, []).append(config.name)
                else:
                    results[i] = self._merge(results[i], model, z, row, spread, assessment)
        for i, models_of in enumerate(lacking):
            for listed, names in models_of.items():
                results[i] = _refused(results[i], _untrained(names, listed))
        return results

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
            if self._outputs.get(name) is model
        }
        result = replace(result, values={**result.values, **found})
        if spread:
            given = dict(zip(names, spread, strict=True))
            mine = {name: given[name] for name in found}
            result = replace(result, spreads={**result.spreads, **mine})
        if assessment is not None:
            result = _assessed(result, model, found, assessment)
        warnings = _hardly_known(model.config, elements)
        if not warnings:
            return result
        return replace(result, warnings=(*result.warnings, *warnings), in_domain=False)


def _is_lost(error: Exception) -> bool:
    """Whether the device will fail from now on, whatever it is asked (a fault in a kernel)."""
    kind = getattr(torch, "AcceleratorError", None)  # since PyTorch 2.8
    lost = kind is not None and isinstance(error, kind)
    text = str(error)
    return (lost or "CUDA error" in text) and "out of memory" not in text


def _refused(result: Prediction, reason: str) -> Prediction:
    """The result with one more reason why values are missing."""
    return replace(result, error=f"{result.error}; {reason}" if result.error else reason)


def _hardly_known(config: ModelConfig, elements: Iterable[int]) -> list[str]:
    """Warnings about elements that few or none of a model's own training crystals hold."""
    training, present = config.training, {*elements}
    warnings = []
    if borrowed := sorted(present & {*training.get("elements_of_start", ())}):
        listed = ", ".join(symbols()[z] for z in borrowed)
        warnings.append(f"{config.name}: only its start was trained on {listed}")
    if training.get("n_train", 0) < _FEW_CRYSTALS:
        return warnings
    counts = training.get("rare_elements", {})
    if rare := [symbols()[z] for z in sorted(present) if symbols()[z] in counts]:
        listed = " and ".join(f"{counts[symbol]} crystals with {symbol}" for symbol in rare)
        warnings.append(f"{config.name}: its training data have only {listed}")
    return warnings


def _without(result: Prediction, name: str) -> Prediction:
    """The result without one property."""
    if name not in result.values:
        return result
    return replace(
        result,
        values={key: value for key, value in result.values.items() if key != name},
        intervals={key: ends for key, ends in result.intervals.items() if key != name},
        spreads={key: spread for key, spread in result.spreads.items() if key != name},
    )


def _untrained(names: Sequence[str], listed: str) -> str:
    """What is said of models that all lack the same elements."""
    if len(names) == 1:
        return f"{names[0]} was not trained on {listed}"
    return f"{', '.join(names[:-1])} and {names[-1]} were not trained on {listed}"


def _canonical(name: str, given: Sequence[str]) -> str:
    """A property's name from one of its aliases, where a model gives it."""
    if name in given:
        return name
    known = get_property_info(name).name
    return answer_for(known, given) or (known if source_of(known, given) else name)


def _elements(composition: torch.Tensor) -> list[set[int]]:
    """Atomic numbers that occur in each crystal, from shares ``[B, 104]``."""
    found: list[set[int]] = [set() for _ in range(len(composition))]
    for crystal, z in composition.nonzero().tolist():
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
