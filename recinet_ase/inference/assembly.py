"""From what the networks made to predictions: bounds, intervals, refusals, warnings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from recinet_ase.elements import symbols
from recinet_ase.inference.computation import Computed
from recinet_ase.inference.preparation import PreparedWindow, failed
from recinet_ase.inference.result import Prediction
from recinet_ase.models.ensemble import AnyModel
from recinet_ase.models.property_model import ModelConfig
from recinet_ase.uncertainty.calibration import Assessment
from recinet_ase.uncertainty.descriptors import Descriptors

_FEW_CRYSTALS = 5_000  # a smaller training set has few crystals of most elements


class Assembly:
    """Makes predictions of what the networks gave.

    Args:
        outputs: The model that answers for each property.
        models: These models, in the order of their computed outcomes.
        intervals: Give intervals and warnings where a model has a calibration.
    """

    def __init__(
        self, outputs: Mapping[str, AnyModel], models: Sequence[AnyModel], intervals: bool
    ) -> None:
        self._outputs = outputs
        self._models = models
        self._intervals = intervals
        # In double precision: 33.7 in single precision is a little more.
        self._bounds = {m: torch.tensor(m.config.bounds, dtype=torch.float64).T[:2] for m in models}

    def read(self, window: PreparedWindow, part: Computed, results: list[Prediction]) -> None:
        """Let what the networks made of some crystals into the results of their window."""
        if part.error:
            for i in part.places:
                results[i] = replace(results[i], error=part.error, fault=part.fault)
            return
        try:
            merged = self._read(window, part, [results[i] for i in part.places])
        except Exception as error:  # one odd crystal must not cost the others theirs
            if len(part.places) == 1:
                merged = [failed(results[part.places[0]], error)]
            else:
                half = len(part.places) // 2
                self.read(window, part[:half], results)
                self.read(window, part[half:], results)
                return
        for i, result in zip(part.places, merged, strict=True):
            results[i] = result

    @torch.inference_mode()
    def _read(
        self, window: PreparedWindow, part: Computed, results: list[Prediction]
    ) -> list[Prediction]:
        """The results of a part of the window, with what each model gives or refuses."""
        composition = window.composition[part.places]
        elements = _elements(composition)
        lacking: list[dict[str, list[str]]] = [{} for _ in results]
        for model, outcome in zip(self._models, part.outcomes, strict=True):
            config = model.config
            rows = outcome.output.double().clamp(*self._bounds[model]).tolist()
            known: Sequence[Assessment | None] = [None] * len(rows)
            if self._intervals and model.calibration is not None:
                described = Descriptors(
                    latent=outcome.latent.double(),
                    output=outcome.output.double(),
                    geometry=window.geometry[config.graph][part.places],
                    composition=composition,
                    spread=outcome.spread.double(),
                )
                known = model.calibration.assess(described)
            spreads = outcome.spread.double().tolist()
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
        values = {
            name: value
            for name, value in zip(names, row, strict=True)
            if self._outputs.get(name) is model
        }
        result = replace(result, values={**result.values, **values})
        if spread:
            given = dict(zip(names, spread, strict=True))
            mine = {name: given[name] for name in values}
            result = replace(result, spreads={**result.spreads, **mine})
        if assessment is not None:
            result = _assessed(result, model, values, assessment)
        warnings = _hardly_known(model.config, elements)
        if warnings:
            result = replace(result, warnings=(*result.warnings, *warnings), in_domain=False)
        if model.config.caution and values:
            caution = f"{model.config.name}: {model.config.caution}"
            result = replace(result, warnings=(*result.warnings, caution))
        return result


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


def _untrained(names: Sequence[str], listed: str) -> str:
    """What is said of models that all lack the same elements."""
    if len(names) == 1:
        return f"{names[0]} was not trained on {listed}"
    return f"{', '.join(names[:-1])} and {names[-1]} were not trained on {listed}"


def _elements(composition: torch.Tensor) -> list[set[int]]:
    """Atomic numbers that occur in each crystal, from shares ``[B, 104]``."""
    present: list[set[int]] = [set() for _ in range(len(composition))]
    for crystal, z in composition.nonzero().tolist():
        present[crystal].add(z)
    return present


def _assessed(
    result: Prediction, model: AnyModel, names: Iterable[str], assessment: Assessment
) -> Prediction:
    """The result with one model's intervals and warnings added."""
    given = dict(zip(model.config.properties, assessment.intervals, strict=True))
    warnings = tuple(f"{model.config.name}: {text}" for text in assessment.warnings)
    return replace(
        result,
        intervals={**result.intervals, **{name: given[name] for name in names}},
        warnings=(*result.warnings, *warnings),
        in_domain=result.in_domain is not False and not warnings,
    )
